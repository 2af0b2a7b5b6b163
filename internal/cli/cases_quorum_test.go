package cli

import "testing"

// quorumLines are about the driver quorum.
var quorumLines = []string{
	quorum("info", `"vote-threshold":1`, "q", "same"), quorum("info --output=json", `"vote-threshold":2`, "q", "q"), quorum("info", `"vote-threshold":0`, "q"),
	quorum("info", `"vote-threshold":2`, "q"), quorum("info", `"vote-threshold":"x"`, "q"), quorum("info", `"vote-threshold":1,"foo":1`, "q"),
	quorum("info", `"vote-threshold":1`), quorum("info", `"vote-threshold":1`, "q", "missing"), quorum("info", `"vote-threshold":1,"blkverify":true`, "q", "q"),
	quorum("info", `"vote-threshold":2,"blkverify":true,"rewrite-corrupted":true`, "q", "q"), quorum("info", `"vote-threshold":1,"rewrite-corrupted":true`, "q"),
	quorum("info", `"vote-threshold":1,"read-pattern":"foo"`, "q"), quorum("map", `"vote-threshold":1`, "q", "q"), quorum("map", `"vote-threshold":1`, "over"),
	quorum("info", `"vote-threshold":1`, "over"), quorum("info --backing-chain", `"vote-threshold":1`, "over"), quorum("info --output=json", `"vote-threshold":1`, "over"),
	quorum("check", `"vote-threshold":2`, "q", "q"), "compare " + quorumName(`"vote-threshold":2`, "q", "q", "raw") + " q", "info quorum:q",
	"convert -O raw " + quorumName(`"vote-threshold":3`, "q", "raw", "raw") + " new",
	`info 'json:{"driver":"quorum","vote-threshold":1,"children":[{"driver":"qcow2","file":{"driver":"file","filename":"q"}}]}'`,
	`info 'json:{"driver":"quorum","vote-threshold":1,"children":["q"]}'`, "info --image-opts driver=quorum,vote-threshold=1,children.1.driver=file",
}

func quorum(command, options string, children ...string) string {
	return command + " " + quorumName(options, children...)
}

// quorumName names a qcow2 image on a quorum of files.
func quorumName(options string, children ...string) string {
	list := ""
	for i, name := range children {
		if i > 0 {
			list += ","
		}
		list += `{"driver":"file","filename":"` + name + `"}`
	}
	return `'json:{"driver":"qcow2","file":{"driver":"quorum",` + options + `,"children":[` + list + `]}}'`
}

func TestQuorum(t *testing.T) {
	allowed := []difference{
		{lines: "convert .*|compare .*", why: "said better: files of different sizes", stderr: ".*children of the quorum have 1507328 and 3145728 bytes\n"},
	}
	differential(t, sample(quorumLines, allowed), allowed...)
}
