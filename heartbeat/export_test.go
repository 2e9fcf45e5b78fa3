package heartbeat

// RunSending is Run with heartbeats sent by send, so that a test can answer them.
var RunSending = run
