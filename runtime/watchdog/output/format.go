package output

import (
	"bytes"
	"strconv"
	"strings"
	"time"
)

// The streams of a process.
const (
	Stdout = "stdout"
	Stderr = "stderr"
)

const (
	currentName = "current.log"
	stampLayout = "2006-01-02T15:04:05.000000000Z"
	nameLayout  = "20060102T150405.000000000Z"

	stampLen  = len(stampLayout)
	tagAt     = stampLen + len(" stdout ")
	headerLen = tagAt + len("F ")

	partial = 'P'
	full    = 'F'
)

// streams lists the streams by their index; both names are equally long, so
// that every header is headerLen bytes.
var streams = [...]string{Stdout, Stderr}

// streamIndex returns the index of a stream; any name but stderr is stdout.
func streamIndex(name string) int {
	if name == Stderr {
		return 1
	}
	return 0
}

// appendHeader appends the header of a full line.
func appendHeader(b []byte, now time.Time, stream int) []byte {
	b = now.UTC().AppendFormat(b, stampLayout)
	b = append(b, ' ')
	b = append(b, streams[stream]...)
	return append(b, ' ', full, ' ')
}

// piece is one parsed line of a file. Its text belongs to the reader's buffer.
type piece struct {
	stream int
	tag    byte
	stamp  []byte
	text   []byte
}

// parsePiece parses a line without its newline; ok is false unless a writer
// wrote it whole.
func parsePiece(line []byte) (p piece, ok bool) {
	if len(line) < headerLen || line[stampLen-1] != 'Z' || line[stampLen] != ' ' ||
		line[tagAt-1] != ' ' || line[tagAt+1] != ' ' {
		return piece{}, false
	}
	switch string(line[stampLen+1 : tagAt-1]) {
	case Stdout:
		p.stream = 0
	case Stderr:
		p.stream = 1
	default:
		return piece{}, false
	}
	p.tag = line[tagAt]
	if p.tag != full && p.tag != partial {
		return piece{}, false
	}
	p.stamp, p.text = line[:stampLen], line[headerLen:]
	return p, true
}

// parseStamp reads a header's time.
func parseStamp(b []byte) (time.Time, bool) {
	t, err := time.Parse(stampLayout, string(b))
	return t, err == nil
}

// fed returns how many bytes of a process's output the pieces in b hold.
func fed(b []byte) int {
	n := 0
	for len(b) > 0 {
		end := bytes.IndexByte(b, '\n')
		if end < 0 {
			end = len(b)
		}
		if p, ok := parsePiece(b[:end]); ok {
			n += len(p.text)
			if p.tag == full {
				n++
			}
		}
		b = b[min(end+1, len(b)):]
	}
	return n
}

// rotatedName names a file that is rotated at t, when end bytes had been
// written to the directory.
func rotatedName(t time.Time, end int64) string {
	return t.UTC().Format(nameLayout) + "." + strconv.FormatInt(end, 10) + ".log"
}

// parseRotated reads what rotatedName wrote.
func parseRotated(name string) (t time.Time, end int64, ok bool) {
	rest, isLog := strings.CutSuffix(name, ".log")
	dot := strings.LastIndexByte(rest, '.')
	if !isLog || dot != len(nameLayout) {
		return time.Time{}, 0, false
	}
	t, err := time.Parse(nameLayout, rest[:dot])
	if err != nil {
		return time.Time{}, 0, false
	}
	end, err = strconv.ParseInt(rest[dot+1:], 10, 64)
	return t, end, err == nil && end >= 0
}
