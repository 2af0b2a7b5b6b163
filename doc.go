// Package diskimg opens, creates and inspects disk images of all formats that
// this module knows. An image is an io.ReaderAt and io.WriterAt over the guest
// disk, so that file system, archive and hash packages work on it as it is:
//
//	img, err := diskimg.Open("disk.qcow2", nil)
//	if err != nil {
//		return err
//	}
//	defer img.Close()
//	sum := sha256.New()
//	_, err = io.Copy(sum, io.NewSectionReader(img, 0, img.Size()))
//
// Opening is strict unless told otherwise: an image may refer to files beside
// it and below, by plain relative names and with their format stated, and to
// nothing else. Permissive is the policy of the QEMU tools, for images from
// people one trusts. Whoever wants to know what an image refers to, without
// opening any of it, calls Inspect.
//
// Which formats are known is a value, Formats, and not a matter of what some
// other package has imported.
//
// Work on whole images (convert, compare, map) is in package job; what images
// and files are made of, and the errors to branch on, in package block. A
// program that needs one format only can import that format's package instead.
package diskimg
