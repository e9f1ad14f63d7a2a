// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// writeFile writes a file whole or not at all: to a temporary one beside it, which
// then takes its place. A file that is there is replaced.
func writeFile(path string, write func(io.Writer) error) (err error) {
	temp, err := createBeside(path)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(temp.Name()))
		}
	}()
	buffer := bufio.NewWriterSize(temp, 64<<10)
	err = write(buffer)
	if err == nil {
		err = buffer.Flush()
	}
	if err == nil {
		err = temp.Sync()
	}
	if err = errors.Join(err, temp.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(temp.Name(), path)
}

// createBeside makes a temporary file in the folder of path, with the permissions
// of any new file.
func createBeside(path string) (*os.File, error) {
	var random [6]byte
	if _, err := rand.Read(random[:]); err != nil {
		return nil, err
	}
	name := "." + filepath.Base(path) + "." + hex.EncodeToString(random[:])
	return os.OpenFile(filepath.Join(filepath.Dir(path), name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
}

// checkWritable says whether writeFile will be able to write path, as far as that
// can be known.
func checkWritable(path string) error {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("%s: it is there and no regular file; name another one", path)
	}
	temp, err := createBeside(path)
	if err != nil {
		return fmt.Errorf("%w; name a file in a folder that is there and that you may write to", err)
	}
	return errors.Join(temp.Close(), os.Remove(temp.Name()))
}
