package main_test

import (
	"net"
	"testing"
)

// TestNeighbourOnThePort: a worker whose servers were killed does not work for the stack of another data directory that has
// their ports now, and goes on with its own when they are back, on other ports.
func TestNeighbourOnThePort(t *testing.T) {
	t.Parallel()
	u := killedRun(t)
	left := copyOf(t, u, u.data) // killed in its DPO training
	args := append([]string{"up", "--no-worker"}, ports(t)...)
	servers := left.session(args...)
	servers.said("it is up", has("Temporal UI"))
	_, port, err := net.SplitHostPort(left.info().Temporal)
	if err != nil {
		t.Fatal(err)
	}
	was := left.info()
	worker := left.session("worker")
	worker.said("it serves", has("Serving data"))
	servers.kill()

	other := newMachine(t)
	other.model = u.model
	neighbour := other.session("up", "--no-worker", "--temporal-port", port)
	neighbour.said("it is up", has("Temporal UI"))
	run := other.session(other.runArgs("tiny")...)
	run.said("it is followed", has("Run tiny started"))
	own := other.session("worker") // after the other one had every chance
	own.said("it serves", has("Serving data"))
	run.finished()
	other.same(t, "tiny", u.want)
	select {
	case <-worker.ended:
		t.Fatalf("the worker has ended:\n%s", worker.output())
	default:
	}

	servers = left.session("up", "--no-worker")
	servers.said("it is up", has("Temporal UI"))
	if is := left.info(); is.Temporal == was.Temporal {
		t.Fatalf("both have the address %s", is.Temporal)
	}
	worker.said("it notices", has("has other addresses now"))
	left.must("run", "--id", "tiny")
	left.same(t, "tiny", u.want)
}
