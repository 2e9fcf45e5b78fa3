//go:build !linux

package hub

import "io/fs"

// fingerprintOf works like the Linux version without inode and change time.
func fingerprintOf(path string, st fs.FileInfo) fingerprint {
	return fingerprint{Path: path, Size: st.Size(), ModTime: st.ModTime().UnixNano()}
}
