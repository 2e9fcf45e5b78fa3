// Package browser drives a headless Chromium in tests the way a reader's hands do: it opens pages, waits for what they
// show, clicks what can be seen and types. It reaches loopback addresses only, and ends with the test.
//
// It waits for elements and texts, never for a silent network: the Temporal UI asks its server for news without end.
//
// Start at [Open]. Chromium is the program named by the environment variable CHROMIUM, or one on the PATH
// (bench/setup_browser.sh installs Debian's). Without one a test is skipped, and fails where CHARACTER_REQUIRE has the
// word chromium. Tests that use this package carry the build constraint !noserver: its DevTools client is much to compile.
package browser
