package walkthrough

import "syscall"

// otherFileSystem reports whether two paths are on different devices, which shows a mount without the mount table.
func otherFileSystem(path, parent string) (bool, error) {
	var here, above syscall.Stat_t
	if err := syscall.Stat(path, &here); err != nil {
		return false, err
	}
	if err := syscall.Stat(parent, &above); err != nil {
		return false, err
	}
	return here.Dev != above.Dev, nil
}
