package wallclock

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// code is clock_gettime(clock, *timespec) as a plain system call that adds the seconds behind it to the two clocks that
// tell the time of day.
var code = []byte{
	0xb8, 0xe4, 0x00, 0x00, 0x00, // mov  eax, 228 (clock_gettime)
	0x0f, 0x05, //                   syscall
	0x85, 0xff, //                   test edi, edi (CLOCK_REALTIME)
	0x74, 0x05, //                   je   add
	0x83, 0xff, 0x05, //             cmp  edi, 5 (CLOCK_REALTIME_COARSE)
	0x75, 0x0a, //                   jne  out
	0x48, 0x8b, 0x0d, 0x09, 0x00, 0x00, 0x00, // add: mov rcx, [rip+9]
	0x48, 0x01, 0x0e, //             add  [rsi], rcx
	0xc3,                         // out: ret
	0xcc, 0xcc, 0xcc, 0xcc, 0xcc, // up to the eight bytes that hold the seconds
}

// Shift makes the wall clock of a running process by ahead of the machine's, in whole seconds (negative: behind); 0 puts it
// right again. Processes that it starts later, and those it has started, keep their own. The process must be a child of
// this one, or this one root.
func Shift(pid int, by time.Duration) error {
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	defer mem.Close() //nolint:errcheck // nothing is buffered
	low, high, err := vdso(pid)
	if err != nil {
		return err
	}
	image := make([]byte, high-low)
	if _, err := mem.ReadAt(image, int64(low)); err != nil {
		return fmt.Errorf("%w: read the vDSO: %w", ErrUnsupported, err)
	}
	at, err := clockGettime(image)
	if err != nil {
		return err
	}
	patch := binary.LittleEndian.AppendUint64(bytes.Clone(code), uint64(int64(by/time.Second)))
	if bytes.HasPrefix(image[at:], code) { // shifted before: eight bytes change at once, whoever reads them
		_, err = mem.WriteAt(patch[len(code):], int64(low+at)+int64(len(code)))
	} else {
		err = standingStill(pid, low, high, func() error {
			_, err := mem.WriteAt(patch, int64(low+at))
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("%w: write to the vDSO: %w", ErrUnsupported, err)
	}
	return nil
}

// vdso finds where the kernel's functions are in a process.
func vdso(pid int) (low, high uint64, err error) {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return 0, 0, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	for line := range strings.Lines(string(maps)) {
		if strings.HasSuffix(strings.TrimSpace(line), "[vdso]") {
			_, err := fmt.Sscanf(line, "%x-%x ", &low, &high)
			return low, high, err
		}
	}
	return 0, 0, fmt.Errorf("%w: process %d has no vDSO", ErrUnsupported, pid)
}

// clockGettime finds the function in the image, with room for ours.
func clockGettime(image []byte) (at uint64, err error) {
	f, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return 0, fmt.Errorf("%w: vDSO: %w", ErrUnsupported, err)
	}
	symbols, err := f.DynamicSymbols()
	if err != nil {
		return 0, fmt.Errorf("%w: vDSO: %w", ErrUnsupported, err)
	}
	for _, s := range symbols {
		if s.Name == "__vdso_clock_gettime" {
			if s.Size < uint64(len(code))+8 || s.Value%8 != 0 || s.Value+s.Size > uint64(len(image)) {
				return 0, fmt.Errorf("%w: the vDSO's clock_gettime has %d bytes at %#x", ErrUnsupported, s.Size, s.Value)
			}
			return s.Value, nil
		}
	}
	return 0, fmt.Errorf("%w: the vDSO has no clock_gettime", ErrUnsupported)
}

// standingStill stops a process at a moment when none of its threads is inside the functions that change.
func standingStill(pid int, low, high uint64, change func() error) error {
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			return err
		}
		outside, err := outside(pid, low, high)
		if err == nil && outside {
			err = change()
		}
		if err := errors.Join(err, syscall.Kill(pid, syscall.SIGCONT)); err != nil || outside {
			return err
		}
	}
	return fmt.Errorf("process %d did not leave the vDSO, or was not stopped, for a minute", pid)
}

// outside tells that all threads of a process are stopped, and none of them between two addresses.
func outside(pid int, low, high uint64) (bool, error) {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		stopped, all := 0, 0
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
		if err != nil {
			return false, err
		}
		for _, t := range tasks {
			all++
			f, err := os.Open(filepath.Join(t, "stat"))
			if err != nil {
				continue // it has ended
			}
			b, err := io.ReadAll(f)
			_ = f.Close() // read
			if after := bytes.LastIndexByte(b, ')'); err != nil || after < 0 || !bytes.HasPrefix(b[after:], []byte(") T")) {
				continue
			}
			stopped++
			b, err = os.ReadFile(filepath.Join(t, "syscall"))
			if err != nil {
				return false, err
			}
			fields := strings.Fields(string(b)) // the last one is where it stands
			if len(fields) == 0 {
				return false, fmt.Errorf("%s/syscall is empty", t)
			}
			pc, err := strconv.ParseUint(strings.TrimPrefix(fields[len(fields)-1], "0x"), 16, 64)
			if err != nil {
				return false, fmt.Errorf("%s/syscall: %q", t, b)
			}
			if pc >= low && pc < high {
				return false, nil
			}
		}
		if all > 0 && stopped == all {
			return true, nil
		}
		if all == 0 || time.Now().After(deadline) {
			return false, fmt.Errorf("process %d does not stop", pid)
		}
	}
}
