package storage

import (
	"io/fs"
	"os"
)

// oldMustClose: a file that is open can't be replaced.
const oldMustClose = true

// inherit does nothing: permissions come from the directory.
func inherit(*os.File, fs.FileInfo) {}

// syncDir does nothing: NTFS keeps names in its journal.
func syncDir(string) error { return nil }
