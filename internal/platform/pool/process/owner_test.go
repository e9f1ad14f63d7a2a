// SPDX-License-Identifier: Apache-2.0

//go:build linux

package process_test

const ownerVariable = "DISDEL_TEST_OWNER"

func actAsOwner() {}
