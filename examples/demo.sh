#!/bin/sh
# The main job from start to end: a disk with a real file system on it goes from
# raw to qcow2, gets compressed, and comes back. Run by make demo, which builds
# bin/diskimg first.
set -eu
PATH=$PWD/bin:$PATH:/usr/sbin:/sbin
files=$(go env GOROOT)/src/
progress=
[ -t 1 ] && progress=-p
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

run() {
	printf '\n$ %s\n' "$*"
	"$@"
}

echo "A disk with an ext4 file system that holds Go's own sources:"
run mke2fs -q -F -t ext4 -d "$files" disk.raw 512M
run diskimg convert $progress -f raw -O qcow2 disk.raw disk.qcow2
run diskimg info disk.qcow2
run diskimg check disk.qcow2
run diskimg compare disk.raw disk.qcow2
run diskimg map disk.qcow2
run diskimg convert $progress -c -O qcow2 -o compression_type=zstd disk.qcow2 small.qcow2
run diskimg convert $progress -f qcow2 -O raw small.qcow2 back.raw
run cmp disk.raw back.raw
printf '\nThe disk has come back as it was. It takes up %s as raw, %s as qcow2, %s as compressed qcow2.\n' \
	"$(du -h disk.raw | cut -f1)" "$(du -h disk.qcow2 | cut -f1)" "$(du -h small.qcow2 | cut -f1)"
