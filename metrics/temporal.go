package metrics

import (
	"fmt"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/opentelemetry"
)

// Temporal is what a Temporal client is given (client.Options.MetricsHandler) so that the SDK's own metrics, temporal_...,
// stand beside ours: polls, slots, requests, latencies. nil for a nil Set: nothing is counted.
func (s *Set) Temporal() (client.MetricsHandler, error) {
	if s == nil {
		return nil, nil
	}
	e, err := otelprometheus.New(otelprometheus.WithRegisterer(prometheus.Registerer(s.registry)), otelprometheus.WithoutScopeInfo(), otelprometheus.WithoutTargetInfo())
	if err != nil {
		return nil, fmt.Errorf("metrics of the Temporal SDK: %w", err)
	}
	// OpenTelemetry's buckets are for milliseconds, the SDK's times are seconds.
	seconds := metric.NewView(metric.Instrument{Kind: metric.InstrumentKindHistogram}, metric.Stream{Aggregation: metric.AggregationExplicitBucketHistogram{Boundaries: long}})
	p := metric.NewMeterProvider(metric.WithReader(e), metric.WithView(seconds))
	return opentelemetry.NewMetricsHandler(opentelemetry.MetricsHandlerOptions{Meter: p.Meter("temporal-sdk-go"), UseMonotonicCounters: true,
		OnError: func(err error) { slog.Warn("a metric of the Temporal SDK is not counted", "error", err) }}), nil
}
