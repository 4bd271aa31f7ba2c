// Package chromium starts a headless Chromium for tests.
package chromium

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"time"

	"github.com/chromedp/chromedp"
)

// Start starts a Chromium whose profile is in a folder of its own. End ends it. If
// the test binary is killed, the system does.
func Start(profile string, options ...chromedp.ExecAllocatorOption) (context.Context, error) {
	path, err := find()
	if err != nil {
		return nil, err
	}
	options = append(append(chromedp.DefaultExecAllocatorOptions[:], // headless, no-first-run, no background networking, no sync
		chromedp.ExecPath(path),
		chromedp.UserDataDir(profile),
		chromedp.NoSandbox, // most containers do not allow a sandbox
		chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
		// A whole browser loads the popup of the address bar twice for each page,
		// which takes more of a processor than the page.
		chromedp.Flag("disable-features", "Translate,BlinkGenPropertyTrees,WebUIOmniboxPopup,WebUIOmniboxAimPopup"),
	), options...)
	allocator, _ := chromedp.NewExecAllocator(context.Background(), options...)
	running, _ := chromedp.NewContext(allocator)
	if err := chromedp.Do(running); err != nil {
		return nil, fmt.Errorf("start Chromium: %w", err)
	}
	return running, nil
}

// End waits until Chromium has ended and released its profile.
func End(running context.Context, limit time.Duration) error {
	bounded, cancel := context.WithTimeout(running, limit)
	defer cancel()
	if err := chromedp.Cancel(bounded); err != nil {
		return fmt.Errorf("end Chromium: %w", err)
	}
	return nil
}

// find prefers the headless shell: the same engine without a window, for a quarter
// of the processor time of a whole browser.
func find() (string, error) {
	for _, name := range []string{"chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("these tests need Chromium, which is not installed: `make test` installs it")
}
