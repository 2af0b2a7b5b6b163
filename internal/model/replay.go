package model

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/diskimg/diskimg/block/blocktest"
	"github.com/diskimg/diskimg/internal/qemu"
)

// Replay runs random sequences on images of a format, and with qemu-io on twins
// that qemu-img has made with the same options. Each program reads and checks
// the image of the other.
func Replay(t testing.TB, f blocktest.Format, o Options) {
	t.Helper()
	qemu.Need(t, "qemu-img", "qemu-io")
	campaign(t, f, o, func(s *session) error {
		if err := alone(s); err != nil {
			return err
		}
		if err := s.crossRead(); err != nil {
			return fmt.Errorf("our image: %w", err)
		}
		twin := &session{plan: s.plan, dir: s.dir, seq: s.seq, name: "twin"}
		if err := twin.createByQemu(); err != nil {
			return err
		}
		if err := twin.playByQemu(twin.segments()...); err != nil {
			return err
		}
		if err := twin.inspect(); err != nil {
			return fmt.Errorf("QEMU's image, as we read it: %w", err)
		}
		if err := twin.crossRead(); err != nil {
			return fmt.Errorf("QEMU's image: %w", err)
		}
		return nil
	})
}

// Relay runs random sequences on one image in turns: what comes before the first
// reopening by one program, what comes after it by the other.
func Relay(t testing.TB, f blocktest.Format, o Options) {
	t.Helper()
	qemu.Need(t, "qemu-img", "qemu-io")
	campaign(t, f, o, func(s *session) error {
		create := []func() error{s.create, s.createByQemu}[s.seq.Seed%2]
		if err := create(); err != nil {
			return err
		}
		for i, ops := range s.segments() {
			by, do := "diskimg", s.play
			if (s.seq.Seed/2+int64(i))%2 == 1 {
				by, do = "qemu-io", func(ops []Op) error { return s.playByQemu(ops) }
			}
			if err := do(ops); err != nil {
				return fmt.Errorf("part %d, by %s: %w", i, by, err)
			}
			if err := s.inspect(); err != nil {
				return fmt.Errorf("after part %d, by %s: %w", i, by, err)
			}
		}
		return s.crossRead()
	})
}

// createByQemu makes the image with qemu-img.
func (s *session) createByQemu() error {
	if err := s.begin(); err != nil {
		return err
	}
	o := map[string]string{}
	maps.Copy(o, blocktest.ExpandOptions(s.seq.Options, s.path()))
	if s.seq.Base >= 0 {
		o["backing_file"], o["backing_fmt"] = s.basePath(), s.format.Name
	}
	args := append([]string{"create", "-q", "-f", s.format.Name}, qemu.Secret...)
	if len(o) > 0 {
		args = append(args, "-o", qemu.Options(o))
	}
	stdout, stderr, code := qemu.TryCreate(append(args, s.path(), fmt.Sprint(s.seq.Size))...)
	if code != 0 {
		return fmt.Errorf("qemu-img create %v: exit code %d: %s%s", o, code, stdout, stderr)
	}
	return nil
}

// playByQemu has one qemu-io process do the operations, reopening the image after
// each part but the last, and does them to the model.
func (s *session) playByQemu(parts ...[]Op) error {
	script := []string{qemu.Open(s.path(), s.format.Name)}
	for i, ops := range parts {
		if i > 0 {
			script = append(script, "close", qemu.Open(s.path(), s.format.Name))
		}
		s.qemu = qemuTurn{}
		for _, o := range ops {
			line, err := s.command(o)
			if err != nil {
				return err
			}
			script = append(script, line)
		}
	}
	_, err := qemu.TryIO(append(script, "close")...)
	return err
}

// command does an operation to the model and returns the command for it. Like
// do, it leaves out what does not fit.
func (s *session) command(o Op) (string, error) {
	content := ""
	if o.Fill != "" {
		file := filepath.Join(s.dir, fmt.Sprint("content", o.ID))
		if err := os.WriteFile(file, o.Content(), 0o600); err != nil {
			return "", err
		}
		content = "-s " + file
	}
	return s.line(o, content), nil
}

// line is command for a given content.
func (s *session) line(o Op, content string) string {
	a, ok := s.action(o.Action)
	if !ok || o.Off+o.Len > s.disk.Size() {
		return ""
	}
	command := a.QemuIO
	switch {
	case a.Model == nil:
	case a.Fresh && s.fresh(o) && !s.qemu.lost:
		s.qemu.compress(s.clusters(o))
	case a.Fresh:
		command = write.QemuIO
		fallthrough
	default:
		s.qemu.overwrite(s.clusters(o))
	}
	s.apply(a, o)
	return command(o, content)
}

// qemuTurn is what a qemu-io process has done since it opened the image. QEMU 7.2
// goes on with compressed data in the host cluster where it left off even when
// all that was there has been overwritten and the cluster is in other use: it
// damages the image. So nothing is compressed after that.
type qemuTurn struct {
	compressed map[int64]bool
	lost       bool // a compressed cluster has been overwritten
}

func (q *qemuTurn) compress(clusters iter.Seq[int64]) {
	if q.compressed == nil {
		q.compressed = map[int64]bool{}
	}
	for c := range clusters {
		q.compressed[c] = true
	}
}

func (q *qemuTurn) overwrite(clusters iter.Seq[int64]) {
	for c := range clusters {
		q.lost = q.lost || q.compressed[c]
	}
}

// crossRead demands that QEMU reads the image as we do and finds it clean.
func (s *session) crossRead() error {
	img, err := s.format.Open(s.path(), blocktest.OpenOptions{})
	if err != nil {
		return err
	}
	content, err := readAt(img, 0, img.Size())
	if err := errors.Join(err, img.Close()); err != nil {
		return err
	}
	dump := s.path() + ".content"
	if err := os.WriteFile(dump, content, 0o600); err != nil {
		return err
	}
	if _, err := qemu.TryCheck(s.path(), s.format.Name); err != nil {
		return err
	}
	stdout, stderr, code := qemu.TryCompare(s.path(), s.format.Name, dump, "raw")
	if code != 0 {
		return fmt.Errorf("QEMU reads it otherwise than we do: %s%s", stdout, stderr)
	}
	return nil
}

// script writes a sequence for people to run with qemu-io, with one byte for the
// content of each write.
func (p plan) script(seq Sequence) string {
	var b strings.Builder
	o := map[string]string{}
	maps.Copy(o, blocktest.ExpandOptions(seq.Options, "disk"))
	if seq.Base >= 0 {
		o["backing_file"], o["backing_fmt"] = "base", p.format.Name
		fmt.Fprintf(&b, "qemu-img create -f %s base %d\n", p.format.Name, seq.Base)
		fmt.Fprintf(&b, "qemu-io -f %s -c 'write -P 255 0 %d' base\n", p.format.Name, seq.Base)
	}
	fmt.Fprintf(&b, "qemu-img create -f %s", p.format.Name)
	if len(o) > 0 {
		fmt.Fprintf(&b, " -o %s", qemu.Options(o))
	}
	fmt.Fprintf(&b, " disk %d\nqemu-io <<'END'\n%s\n", seq.Size, qemu.Open("disk", p.format.Name))
	s := session{plan: p, seq: seq, disk: NewDisk(seq.Size, nil), used: map[int64]bool{}}
	for _, op := range seq.Ops {
		if op.Action == Reopen {
			s.qemu = qemuTurn{}
			b.WriteString("close\n" + qemu.Open("disk", p.format.Name) + "\n")
			continue
		}
		pattern := op.ID%255 + 1
		if op.Fill == Zeros {
			pattern = 0
		}
		b.WriteString(s.line(op, fmt.Sprintf("-P %d", pattern)) + "\n")
	}
	b.WriteString("END\n")
	return b.String()
}
