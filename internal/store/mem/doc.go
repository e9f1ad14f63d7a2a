// SPDX-License-Identifier: Apache-2.0

// Package mem keeps a store in the memory of one process. It is the contract of
// [disdel/internal/store.Store] as the shortest program that obeys it: where
// the words of the contract leave a doubt, other implementations are compared
// with this one. It hides nothing else: no files, no goroutines, no clock, so it
// may be used inside a testing/synctest bubble.
//
// All methods may be called from any goroutine.
package mem
