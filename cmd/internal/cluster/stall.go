package cluster

import (
	"fmt"
	"time"
)

// StallUsage is the help for the limit of a worker's watchdog.
const StallUsage = "how long work on the engine may give no sign of life (a layer of a pass, a token, a step) before the attempt ends and is tried again (0 = 10m)"

// leastStall leaves a big model's layer on a busy machine its time.
const leastStall = time.Second

// CheckStall refuses limits that healthy work would exceed again and again.
func CheckStall(d time.Duration) error {
	if d != 0 && d < leastStall {
		return fmt.Errorf("--stall %v: want %v or more, or 0 for 10m: the longest time between two signs of life of healthy work must fit into it", d, leastStall)
	}
	return nil
}
