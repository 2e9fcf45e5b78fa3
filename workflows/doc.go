// Package workflows decides the order of a run: preferences, DPO, introspection, SFT, evaluation. Every stage is a
// workflow of its own that can be started alone; [CharacterTraining] starts them as children. The package passes refs
// and counts, never rows, and imports no clock, file, network or random source: what it does is replayed.
//
// Start at character.go. stage.go has what all stages share: progress, pause, details, warnings.
package workflows
