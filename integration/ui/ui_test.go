// Package ui looks at what meshrun keeps in Consul with the eyes of a person:
// in a browser, in the Consul UI.
package ui

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

var screenshots = flag.String("screenshots", "", "`directory` for a picture of each page; \"\" takes none")

// need skips the test where something is missing. In CI it has to be there.
func need(t *testing.T, err error) {
	t.Helper()
	if err != nil && os.Getenv("CI") == "true" {
		t.Fatal(err)
	} else if err != nil {
		t.Skip(err)
	}
}

// browser returns a context for a browser.
func browser(t *testing.T) context.Context {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		need(t, errors.New("chromium is missing: apt-get install chromium"))
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.WindowSize(1280, 1500), chromedp.NoSandbox) // root has no sandbox
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil { // starts it
		t.Fatalf("start chromium: %v", err)
	}
	ctx, cancel = context.WithTimeout(ctx, 4*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// page is a browser that looks at Consul's page.
type page struct {
	t    *testing.T
	ctx  context.Context
	base string
}

// open goes to a page of the datacenter.
func (p *page) open(path string) {
	p.t.Helper()
	if err := chromedp.Do(p.ctx, chromedp.Navigate(p.base+path)); err != nil {
		p.t.Fatalf("open %s: %v", path, err)
	}
}

// sees waits until the page shows all of the texts.
func (p *page) sees(what string, texts ...string) {
	p.t.Helper()
	want, err := json.Marshal(texts)
	if err != nil {
		p.t.Fatal(err)
	}
	shows := chromedp.Evaluate[bool](fmt.Sprintf("!!document.body && %s.every(text => document.body.innerText.includes(text))", want))
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		all, err := chromedp.Run(p.ctx, shows)
		if err == nil && all {
			break
		}
		if time.Now().After(end) {
			body, _ := chromedp.Run(p.ctx, chromedp.Evaluate[string]("document.body.innerText"))
			p.t.Fatalf("%s: want %q (%v); the page shows:\n%s", what, texts, err, body)
		}
	}
	p.picture(what)
}

// follow clicks on the link with that text.
func (p *page) follow(text string) {
	p.t.Helper()
	link := fmt.Sprintf(`//a[normalize-space()=%q]`, text)
	if err := chromedp.Do(p.ctx, chromedp.Click(link, chromedp.NodeVisible)); err != nil {
		p.t.Fatalf("click on %s: %v", text, err)
	}
}

// picture takes one if pictures are wanted.
func (p *page) picture(name string) {
	p.t.Helper()
	if *screenshots == "" {
		return
	}
	path := filepath.Join(*screenshots, strings.ReplaceAll(name, " ", "-")+".png")
	png, err := chromedp.Run(p.ctx, chromedp.FullScreenshot(100))
	if err = errors.Join(err, os.MkdirAll(*screenshots, 0o755), os.WriteFile(path, png, 0o644)); err != nil {
		p.t.Fatalf("take a picture: %v", err)
	}
	p.t.Logf("wrote %s", path)
}
