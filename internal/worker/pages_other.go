// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package worker

import "disdel/internal/job"

func shed() {}

func resident() job.Bytes { return 0 }
