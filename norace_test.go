//go:build !race

package channels_test

const raceDetector = false
