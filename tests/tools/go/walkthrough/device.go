package walkthrough

import "syscall"

// otherFileSystem tells whether two paths are on different devices, which is how a mount is seen from inside.
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
