package model_test

import (
	"testing"

	"github.com/diskimg/diskimg/internal/formats"
	"github.com/diskimg/diskimg/internal/model"
)

// Raw images are the simplest that QEMU and we have in common.
func TestReplayRaw(t *testing.T) {
	model.Replay(t, formats.Get(t, "raw", nil), model.Options{Runs: 3})
}

func TestRelayRaw(t *testing.T) {
	model.Relay(t, formats.Get(t, "raw", nil), model.Options{Runs: 3})
}
