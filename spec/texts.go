package spec

// Texts lets equal texts of several launches be one in memory: of a thousand
// instances most variables are the same.
type Texts map[string]string

// Share gives a launch an Env and Argv of the same texts, with no room for more.
func (t Texts) Share(l *Launch) {
	l.Env, l.Argv = t.share(l.Env), t.share(l.Argv)
}

func (t Texts) share(texts []string) []string {
	if texts == nil {
		return nil
	}
	out := make([]string, len(texts))
	for i, text := range texts {
		one, ok := t[text]
		if !ok {
			one, t[text] = text, text
		}
		out[i] = one
	}
	return out
}
