// Package luks reads and writes LUKS1 headers: which cipher a disk is encrypted
// with, and in up to eight key slots its master key, each time encrypted with
// a passphrase.
//
// Facts: LUKS1 on-disk format specification 1.2, sections "PHDR" (header), "AF
// splitter", and the pseudo code of "Creation", "Add new password", "Master key
// recovery" and "Password revocation". Limits are checked before any memory or
// time is taken by what a header says; they are the constants below.
//
// The master key is in memory only while a disk is opened or a slot is made;
// it, what is derived from a passphrase, and split keys are cleared after use.
package luks
