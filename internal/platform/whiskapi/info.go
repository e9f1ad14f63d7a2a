// SPDX-License-Identifier: Apache-2.0

package whiskapi

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"disdel/internal/job"
)

func formatInt(n int64) string { return strconv.FormatInt(n, 10) }

func megabytes(b job.Bytes) string { return formatInt(int64(b/job.MB)) + " MB" }

func milliseconds(d time.Duration) string { return formatInt(d.Milliseconds()) + " milliseconds" }

// serveOpen serves what needs no credentials.
func (s *Server) serveOpen(r *request, path string, w http.ResponseWriter) (reply, error) {
	answer := reply{status: http.StatusOK, bare: true}
	switch strings.TrimSuffix(path, "/") {
	case "":
		answer.body = s.info()
	case "api/v1":
		answer.bare = false
		answer.body = map[string]any{
			"description": "OpenWhisk API", "api_version": "1.0.0", "api_version_path": "v1",
			"build": "disdel", "buildno": "disdel", "swagger_paths": map[string]string{},
		}
	case "ping":
		answer.body = "pong"
	case "invokers":
		answer.bare = s.cfg.Generation == V1
		answer.body = map[string]string{"invoker0/0": "up"}
	case "invokers/healthy/count":
		answer.bare = s.cfg.Generation == V1
		answer.body = 1
	case "invokers/ready":
		answer.body = map[string]string{"healthy": "1/1"}
	case "metrics":
		text, err := s.metrics.text(r.Context())
		if err != nil {
			return reply{}, err
		}
		answer.body = text
	default:
		return reply{}, noRoute()
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		allowed := "GET, OPTIONS"
		if s.cfg.Generation == V1 {
			allowed = "GET"
		}
		w.Header().Set("Allow", allowed)
		return reply{}, rejection(http.StatusMethodNotAllowed, "HTTP method not allowed, supported methods: %s", allowed)
	}
	return answer, nil
}

// info is what clients ask first: limits and kinds.
func (s *Server) info() map[string]any {
	l := s.cfg.Limits
	limits := map[string]any{
		"actions_per_minute": l.PerMinute, "triggers_per_minute": 0, "concurrent_actions": l.Concurrent, "sequence_length": 0,
	}
	for _, bound := range []struct {
		name        string
		least, most int64
	}{
		{"duration", l.TimeoutMin.Milliseconds(), l.TimeoutMax.Milliseconds()},
		{"memory", int64(l.MemoryMin), int64(l.MemoryMax)},
		{"logs", int64(l.LogsMin), int64(l.LogsMax)},
	} {
		limits["min_action_"+bound.name], limits["max_action_"+bound.name] = bound.least, bound.most
		if s.cfg.Generation >= V2 {
			limits["default_min_action_"+bound.name], limits["default_max_action_"+bound.name] = bound.least, bound.most
		}
	}
	runtimes := map[string][]map[string]any{}
	for _, k := range s.cfg.Kinds {
		family, _, _ := strings.Cut(k.Name, ":")
		runtimes[family] = append(runtimes[family], map[string]any{
			"kind": k.Name, "image": k.Image, "default": k.Default, "deprecated": k.Deprecated, "attached": false, "requireMain": k.RequireMain,
		})
	}
	return map[string]any{
		"description": "OpenWhisk", "api_paths": []string{"/api/v1"}, "limits": limits, "runtimes": runtimes,
		"support": map[string]string{"github": "", "slack": ""},
	}
}

// namespaceLimits are the limits that hold for a namespace.
func (s *Server) namespaceLimits() map[string]any {
	l := s.cfg.Limits
	limits := map[string]any{"invocationsPerMinute": l.PerMinute, "concurrentInvocations": l.Concurrent, "firesPerMinute": 0}
	if s.cfg.Generation >= V2 {
		limits["minActionMemory"], limits["maxActionMemory"] = int64(l.MemoryMin/job.MB), int64(l.MemoryMax/job.MB)
		limits["minActionLogs"], limits["maxActionLogs"] = int64(l.LogsMin/job.MB), int64(l.LogsMax/job.MB)
		limits["minActionTimeout"], limits["maxActionTimeout"] = l.TimeoutMin.Milliseconds(), l.TimeoutMax.Milliseconds()
		limits["minActionConcurrency"], limits["maxActionConcurrency"] = 1, concurrencyMax
		limits["maxActionInstances"] = l.Concurrent
		limits["maxParameterSize"] = formatInt(int64(parametersMax)) + " B"
	}
	return limits
}
