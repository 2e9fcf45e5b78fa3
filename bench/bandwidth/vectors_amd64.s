//go:build !purego

#include "textflag.h"

// func readVectors(p *float32, blocks int)
//
// Reads blocks of 256 bytes with AVX2 loads and prefetches each line 2 KB ahead, as
// the engine's matrix-vector kernel does. Written by hand: it computes nothing.
TEXT ·readVectors(SB), NOSPLIT, $0-16
	MOVQ p+0(FP), SI
	MOVQ blocks+8(FP), CX

loop:
	PREFETCHT0 2048(SI)
	VMOVUPS    (SI), Y0
	VMOVUPS    32(SI), Y1
	PREFETCHT0 2112(SI)
	VMOVUPS    64(SI), Y2
	VMOVUPS    96(SI), Y3
	PREFETCHT0 2176(SI)
	VMOVUPS    128(SI), Y4
	VMOVUPS    160(SI), Y5
	PREFETCHT0 2240(SI)
	VMOVUPS    192(SI), Y6
	VMOVUPS    224(SI), Y7
	ADDQ       $256, SI
	DECQ       CX
	JNZ        loop
	VZEROUPPER
	RET
