package heartbeat

// RunSending is Run with heartbeats sent by send, so that a test can answer them.
var RunSending = run

// Stalls is the watchdog alone, so that a test can run it on a clock of its own.
var Stalls = Options.stalls
