package block

import "cmp"

// Role is what an image refers to another file for.
type Role uint8

const (
	// RoleBacking is the image below an overlay.
	RoleBacking Role = iota
	// RoleData is the file that holds the guest data of an image whose own
	// file holds the tables only.
	RoleData
)

func (r Role) String() string { return [...]string{"backing file", "data file"}[r&1] }

// Ref is a file that an image names.
type Ref struct {
	Role Role
	// Name as it stands in the image: input from a stranger.
	Name string
	// Format that the image gives for it; empty if it gives none.
	Format string
	// From is the path of the image that names it; empty if it has none.
	From string
	// Writable says that it is to be written as well (data files only).
	Writable bool
}

// Policy opens what images refer to. Nothing that an image names is opened but
// through the Policy its opener passed; without one it is refused.
type Policy interface {
	// OpenImage opens the image that ref names, for reading. It is also asked
	// to keep chains finite. The caller closes the image.
	OpenImage(ref Ref) (*Image, error)
	// OpenFile opens a plain file that ref names. The caller closes it.
	OpenFile(ref Ref) (File, error)
}

// Deny refuses everything that an image refers to.
type Deny struct{}

// OpenImage refuses.
func (Deny) OpenImage(ref Ref) (*Image, error) { return nil, ref.refuse() }

// OpenFile refuses.
func (Deny) OpenFile(ref Ref) (File, error) { return nil, ref.refuse() }

func (r Ref) refuse() error {
	return Errorf(ErrRefused, "%s names %s %q and no policy allows opening it", cmp.Or(r.From, "the image"), r.Role, r.Name)
}
