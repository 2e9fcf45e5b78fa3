package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// PowerLoss takes away what no process flushed: the data directory is a file system of its own on an image file, the
// image is copied as it is while the kernel still holds unflushed pages, everything is killed, and the copy is mounted
// in its place. What the device was given stays in order: a device that loses its own cache is not modelled. It needs
// root and mkfs.ext4, so it is not among Kinds.
const PowerLoss = "power-loss"

// disk is a file system on an image file.
type disk struct {
	image, dir string
	losses     int
}

const diskBytes = 256 << 20

func newDisk(folder, dir string) (*disk, error) {
	d := &disk{image: filepath.Join(folder, "disk-0.img"), dir: dir}
	err := os.MkdirAll(dir, 0o755)
	if err == nil {
		err = os.WriteFile(d.image, nil, 0o600)
	}
	if err == nil {
		err = os.Truncate(d.image, diskBytes)
	}
	if err == nil {
		err = command("mkfs.ext4", "-q", "-F", d.image)
	}
	if err == nil {
		err = d.mount()
	}
	if err != nil {
		return nil, fmt.Errorf("chaos: a disk for %s: %w (it needs root and e2fsprogs)", PowerLoss, err)
	}
	return d, nil
}

// mount: with commits of the journal only when somebody flushes, nothing becomes durable by waiting.
func (d *disk) mount() error { return command("mount", "-o", "loop,commit=300", d.image, d.dir) }

// copy keeps what the device has by now.
func (d *disk) copy() (image string, err error) {
	d.losses++
	image = filepath.Join(filepath.Dir(d.image), fmt.Sprintf("disk-%d.img", d.losses))
	return image, command("cp", "--sparse=always", d.image, image)
}

// become puts a copy in the place of what is mounted. Nobody may use it any more.
func (d *disk) become(image string) error {
	if err := d.close(); err != nil {
		return err
	}
	err := os.Remove(d.image)
	d.image = image
	return errors.Join(err, d.mount())
}

func (d *disk) close() (err error) {
	for range 100 {
		if err = command("umount", d.dir); err == nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond) // a killed process lets go of its files in a moment
	}
	return err
}

func command(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return nil
}

// loseControl is a file that nobody flushes: were it there afterwards, the fault would prove nothing.
const loseControl = "unflushed"

// losePower does the fault. No command starts meanwhile.
func (d *drive) losePower(ctx context.Context) error {
	d.gate.Lock()
	defer d.gate.Unlock()
	// Nobody shall flush between two blocks of the copy, nor the control file: a flush under way takes it along.
	signalAll(withRole(d.data, ""), syscall.SIGSTOP)
	time.Sleep(200 * time.Millisecond)
	image, err := "", os.WriteFile(filepath.Join(d.data, loseControl), []byte("here"), 0o600)
	if err == nil {
		image, err = d.disk.copy()
	}
	for ctx.Err() == nil {
		left := withRole(d.data, "")
		if len(left) == 0 {
			break
		}
		signalAll(left, syscall.SIGKILL)
		time.Sleep(5 * time.Millisecond)
	}
	if err == nil {
		err = d.disk.become(image)
	}
	if err != nil {
		return fatal{err}
	}
	if b, err := os.ReadFile(filepath.Join(d.data, loseControl)); err == nil && string(b) == "here" {
		return fatal{errors.New("the loss of power lost nothing: a file that was never flushed is there")}
	}
	return nil
}

// fatal is an error of the tool itself, which ends the round.
type fatal struct{ error }
