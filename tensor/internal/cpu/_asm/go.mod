module github.com/opencharacter/opencharacter/tensor/internal/cpu/_asm

go 1.26
