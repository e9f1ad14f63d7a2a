// SPDX-License-Identifier: Apache-2.0

package whiskapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/common/expfmt"

	"disdel/internal/platform/pool"
)

func is(err, target error) bool { return errors.Is(err, target) }

// metrics counts what the server does. Labels come from small fixed sets.
type metrics struct {
	server      *Server
	registry    *prometheus.Registry
	requests    *prometheus.CounterVec
	activations *prometheus.CounterVec
	throttled   prometheus.Counter
	lost        prometheus.Counter
	wait        prometheus.Histogram
	initTime    prometheus.Histogram
	run         prometheus.Histogram
	memory      prometheus.Gauge
	calls       *prometheus.GaugeVec
	containers  *prometheus.GaugeVec
}

func newMetrics(s *Server) *metrics {
	seconds := prometheus.ExponentialBuckets(0.001, 4, 10) // 1 ms to 262 s
	histogram := func(name, help string) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: seconds})
	}
	m := &metrics{
		server: s, registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "disdel_http_requests_total", Help: "Requests that were answered, by status.",
		}, []string{"code"}),
		activations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "disdel_activations_total", Help: "Calls that have ended, by status and by whether their container was initialised for them.",
		}, []string{"status", "start"}),
		throttled: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "disdel_throttled_total", Help: "Calls that were refused because there were too many.",
		}),
		lost: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "disdel_activations_lost_total", Help: "Calls that ended without a record.",
		}),
		wait:     histogram("disdel_activation_wait_seconds", "Time from a call's request to its start, a container's start included."),
		initTime: histogram("disdel_activation_init_seconds", "Time of /init, of calls that had one."),
		run:      histogram("disdel_activation_run_seconds", "Time of /run."),
		memory: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "disdel_pool_memory_bytes", Help: "Sum of the memory limits of all containers.",
		}),
		calls: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "disdel_pool_calls", Help: "Calls in the pool, by state.",
		}, []string{"state"}),
		containers: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "disdel_pool_containers", Help: "Containers, by state.",
		}, []string{"state"}),
	}
	m.registry.MustRegister(m.requests, m.activations, m.throttled, m.lost, m.wait, m.initTime, m.run, m.memory, m.calls, m.containers,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) answered(status int) { m.requests.WithLabelValues(strconv.Itoa(status)).Inc() }

// ended counts a call; rec is nil when it has no record.
func (m *metrics) ended(rec *record, e pool.Ended) {
	if rec == nil {
		m.lost.Inc()
		return
	}
	start := "warm"
	if rec.isCold {
		start = "cold"
	}
	m.activations.WithLabelValues(rec.status.String(), start).Inc()
	m.wait.Observe(rec.wait.Seconds())
	if rec.isCold && !e.RunBegan.IsZero() {
		m.initTime.Observe(e.RunBegan.Sub(e.InitBegan).Seconds())
	}
	if !e.RunBegan.IsZero() {
		m.run.Observe(e.Ended.Sub(e.RunBegan).Seconds())
	}
}

// text is what a scraper reads.
func (m *metrics) text(ctx context.Context) (string, error) {
	if status, err := m.server.cfg.Pool.Status(ctx); err == nil { // a closed pool keeps its last values
		m.memory.Set(float64(status.Booked))
		m.calls.WithLabelValues("queued").Set(float64(status.Queued))
		m.calls.WithLabelValues("running").Set(float64(status.Running))
		m.containers.WithLabelValues("idle").Set(float64(status.Idle))
		m.containers.WithLabelValues("busy").Set(float64(status.Busy))
		m.containers.WithLabelValues("prewarmed").Set(float64(status.Cells))
	}
	families, err := m.registry.Gather()
	if err != nil {
		return "", fmt.Errorf("metrics: %w", err)
	}
	var out bytes.Buffer
	for _, family := range families {
		if _, err := expfmt.MetricFamilyToText(&out, family); err != nil {
			return "", fmt.Errorf("metrics: %w", err)
		}
	}
	return out.String(), nil
}
