// SPDX-License-Identifier: Apache-2.0

// Package cli is the command line: one file a command, each of which turns
// flags into options, makes one library call and prints. It hides everything
// that depends on being a program that a person started: the environment, where
// files live, exit codes, colour, progress bars, and which drivers there are
// (wire.go).
//
// Data goes to stdout, progress and problems to stderr.
package cli

//go:generate go run ./gendocs ../../docs/cli
