//go:build !purego

package cpu

import "golang.org/x/sys/cpu"

// assembly returns the variants this machine and its system can run, the
// fastest first. The guards name all that the generated code uses.
func assembly() (all []*Kernels) {
	f16c := features()&(1<<29) != 0 // converts float16s
	if cpu.X86.HasAVX512F && cpu.X86.HasAVX2 && cpu.X86.HasFMA && f16c {
		bf16 := []*pairLoops{pairsFMAAVX512}
		if cpu.X86.HasAVX512BF16 {
			bf16 = []*pairLoops{pairsDPAVX512, pairsFMAAVX512}
		}
		all = append(all, &Kernels{micro: avx512Loops, bf16: bf16})
	}
	if cpu.X86.HasAVX2 && cpu.X86.HasFMA && f16c {
		all = append(all, &Kernels{micro: avx2Loops, bf16: []*pairLoops{pairsFMAAVX2}})
	}
	return all
}

// features is what CPUID, leaf 1, returns in ECX.
func features() uint32

// pause tells the core that this is a spin loop.
func pause()
