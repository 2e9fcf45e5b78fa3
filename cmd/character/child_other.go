//go:build !linux

package main

import (
	"os/exec"
	"syscall"
)

// ownGroup keeps the terminal's Ctrl-C away from the child, whose end is ours to order. Other systems have no signal
// for the death of a parent: after a kill -9 of `up` its worker goes on until it finds the servers gone. Commits are
// fenced, so it does no harm.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }
