// Package activities does the work of every stage: it is the only place where the domains meet (constitutions, data
// sets, the object store, the language model, the teacher). It knows nothing of the order of the stages: that is
// package workflows, which passes refs and never rows.
//
// Three structs are three sets of dependencies and three task queues: [Data], [Teacher] and [Engine]. Method names are
// unique across them, because a Temporal worker registers activities by method name.
//
// Every activity is safe to run twice: outputs are named by their content or committed under a fence, and the same
// input gives the same bytes (the row law), so a second attempt finds its work done or does it again unchanged.
package activities
