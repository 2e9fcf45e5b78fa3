//go:build !purego

package cpu

import "golang.org/x/sys/cpu"

// assembly returns the variants this machine and its system can run, the
// fastest first. The guards name all that the generated code uses.
func assembly() (all []*micro) {
	if cpu.X86.HasAVX512F && cpu.X86.HasAVX2 && cpu.X86.HasFMA {
		all = append(all, avx512Loops)
	}
	if cpu.X86.HasAVX2 && cpu.X86.HasFMA {
		all = append(all, avx2Loops)
	}
	return all
}

// pause tells the core that this is a spin loop.
func pause()
