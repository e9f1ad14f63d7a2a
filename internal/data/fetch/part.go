// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// part is the file that a download is written to before it has its name.
type part struct {
	file *os.File
	// own says that nobody can resume it: it goes if it is not finished.
	own      bool
	finished bool
}

// openPart opens what an earlier download of the path has left, or a new file.
// While another process is at it, it makes one of its own.
func openPart(path string) (_ *part, err error) {
	folder := filepath.Dir(path)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path+PartSuffix, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, file.Close())
		}
	}()
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		// Who had the lock may have finished the file between the two steps.
		if same, err := stillThere(file, path+PartSuffix); err != nil || same {
			return &part{file: file}, err
		}
	} else if !errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, fmt.Errorf("lock %s: %w", file.Name(), err)
	}
	other, err := os.CreateTemp(folder, "."+filepath.Base(path)+"-*"+PartSuffix)
	if err != nil {
		return nil, err
	}
	return &part{file: other, own: true}, file.Close()
}

func stillThere(file *os.File, path string) (bool, error) {
	opened, err := file.Stat()
	if err != nil {
		return false, err
	}
	named, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(opened, named), err
}

func (p *part) size() (int64, error) {
	info, err := p.file.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (p *part) truncate() error {
	if err := p.file.Truncate(0); err != nil {
		return err
	}
	_, err := p.file.Seek(0, io.SeekStart)
	return err
}

// finish gives the file its final name, once it is on the disk.
func (p *part) finish(path string) error {
	if err := p.file.Sync(); err != nil {
		return err
	}
	if err := os.Rename(p.file.Name(), path); err != nil {
		return err
	}
	p.finished = true
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// close leaves a file that the next download can go on with, if it has begun.
func (p *part) close() error {
	size, err := p.size()
	remove := !p.finished && (p.own || err == nil && size == 0)
	if remove {
		err = errors.Join(err, os.Remove(p.file.Name()))
	}
	return errors.Join(err, p.file.Close())
}
