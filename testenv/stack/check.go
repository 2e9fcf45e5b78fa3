package stack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/opencharacter/opencharacter/testenv/temporalserver"
)

// States of the Temporal server's file.
const (
	TemporalWhole   = "whole"
	TemporalMissing = "missing"
	TemporalDamaged = "damaged"
)

// CheckTemporal looks at the file of a stack's Temporal server; no stack may run on dir. With TemporalDamaged the error says what is wrong; any other
// error is one of the look itself, or a file of another release, which is whole.
func CheckTemporal(ctx context.Context, dir string) (state string, err error) {
	err = temporalserver.Check(ctx, filepath.Join(dir, "temporal"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return TemporalMissing, nil
	case errors.Is(err, temporalserver.ErrDamaged):
		return TemporalDamaged, err
	}
	return TemporalWhole, err
}

// SetTemporalAside renames the folder of a stack's Temporal server, so that the next start makes a new file. It holds the stack's lock
// meanwhile.
func SetTemporalAside(ctx context.Context, dir string) (to string, err error) {
	unlock, err := takeLock(ctx, dir)
	if err != nil {
		return "", err
	}
	to = filepath.Join(dir, "temporal.damaged-"+time.Now().UTC().Format("20060102T150405.000Z"))
	if err = os.Rename(filepath.Join(dir, "temporal"), to); err != nil {
		err = fmt.Errorf("stack: set the Temporal server's folder aside: %w", err)
	}
	return to, errors.Join(err, unlock())
}
