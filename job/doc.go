// Package job does long work on whole disk images of any format: Convert
// copies them, Compare finds the first difference between two, Map says where
// the content of one lies.
//
// Every job takes a context and returns soon after it is cancelled, with its
// cause; no goroutine outlives the call. Progress is counted in bytes of the
// guest disk and told to a func that is called by one goroutine at a time.
// Options can be nil: the zero value is the default. No job flushes or closes
// an image: that is left to who opened it.
//
//	if err := job.Convert(ctx, dst, []*block.Image{src}, nil); err != nil {
//		return err
//	}
//	return dst.Flush()
package job
