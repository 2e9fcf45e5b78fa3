package hub

import (
	"io/fs"
	"syscall"
)

func fingerprintOf(path string, st fs.FileInfo) fingerprint {
	p := fingerprint{Path: path, Size: st.Size(), ModTime: st.ModTime().UnixNano()}
	if s, ok := st.Sys().(*syscall.Stat_t); ok {
		p.Inode, p.Change = s.Ino, s.Ctim.Nano()
	}
	return p
}
