package report

import (
	"bytes"
	"fmt"
	"html/template"
	"image/color"
	"math"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// panel is one figure with one or more curves.
type panel struct {
	Title, Note string
	names       []string
	SVG         template.HTML
	Last        string // the last values, for readers without pictures
}

var dpoPanels = []panel{
	{Title: "Loss", Note: "begins at ln 2 = 0.693 and should fall", names: []string{"loss"}},
	{Title: "Accuracy", Note: "share of pairs whose chosen answer is preferred; ties count one half", names: []string{"accuracy"}},
	{Title: "Rewards", Note: "beta times the log-ratio to the reference, and their margin", names: []string{"margin", "chosen_reward", "rejected_reward"}},
}

var sftPanels = []panel{
	{Title: "Loss", Note: "mean of the rows' mean token loss; should fall", names: []string{"loss"}},
	{Title: "Perplexity", Note: "exp(loss)", names: []string{"perplexity"}},
}

// lineColors read well on light and dark ground; the dashes tell curves apart
// without color.
var lineColors = []color.Color{
	color.NRGBA{R: 0x2f, G: 0x86, B: 0xd6, A: 0xff},
	color.NRGBA{R: 0x2e, G: 0xa0, B: 0x5a, A: 0xff},
	color.NRGBA{R: 0xd9, G: 0x6a, B: 0x2b, A: 0xff},
}

var lineDashes = [][]vg.Length{nil, {vg.Points(6), vg.Points(3)}, {vg.Points(2), vg.Points(2)}}

// panels draws the known figures that have points, then one for each other
// curve by name.
func panels(known []panel, curves map[string][]Point) ([]panel, error) {
	var out []panel
	used := map[string]bool{}
	for _, p := range known {
		for _, n := range p.names {
			used[n] = true
		}
		out = append(out, p)
	}
	var rest []string
	for name := range curves {
		if !used[name] {
			rest = append(rest, name)
		}
	}
	slices.Sort(rest)
	for _, name := range rest {
		out = append(out, panel{Title: title(name), names: []string{name}})
	}
	var drawn []panel
	for _, p := range out {
		ok, err := p.draw(curves)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.Title, err)
		}
		if ok {
			drawn = append(drawn, p)
		}
	}
	return drawn, nil
}

// draw fills SVG and Last; false means there is nothing to draw.
func (p *panel) draw(curves map[string][]Point) (bool, error) {
	fig := plot.New()
	fig.X.Label.Text = "step"
	fig.X.Tick.Marker, fig.Y.Tick.Marker = plot.DefaultTicks{}, plot.DefaultTicks{}
	fig.BackgroundColor = color.Transparent
	fig.Legend.Top, fig.Legend.Left, fig.Legend.XOffs = true, true, vg.Points(8)
	fig.Legend.Padding = vg.Points(2)
	grid := plotter.NewGrid()
	faint := color.NRGBA{R: 0x80, G: 0x80, B: 0x80, A: 0x50}
	grid.Vertical.Color, grid.Horizontal.Color = faint, faint
	fig.Add(grid)
	any := false
	var last []string
	for i, name := range p.names {
		xys, bad := points(curves[name])
		if bad > 0 {
			last = append(last, fmt.Sprintf("%s: %d values are not finite and are not drawn", title(name), bad))
		}
		if len(xys) == 0 {
			continue
		}
		line, err := plotter.NewLine(xys)
		if err != nil {
			return false, err
		}
		line.Color, line.Width = lineColors[i%len(lineColors)], vg.Points(1.6)
		line.Dashes = lineDashes[i%len(lineDashes)]
		fig.Add(line)
		if len(xys) == 1 { // a line of one point is invisible
			dot, err := plotter.NewScatter(xys)
			if err != nil {
				return false, err
			}
			dot.Color, dot.Shape = line.Color, draw.CircleGlyph{}
			fig.Add(dot)
		}
		if len(p.names) > 1 {
			fig.Legend.Add(title(name), line)
		}
		any = true
		first, end := xys[0], xys[len(xys)-1]
		last = append(last, fmt.Sprintf("%s %s → %s", title(name), number(first.Y), number(end.Y)))
	}
	p.Last = strings.Join(last, "; ")
	if !any {
		return p.Last != "", nil
	}
	widen(&fig.X)
	widen(&fig.Y)
	canvas := vgsvg.New(vg.Points(420), vg.Points(240))
	// Room at the right and the top: axis labels reach beyond the last tick.
	fig.Draw(draw.Crop(draw.New(canvas), 0, vg.Points(-12), 0, vg.Points(-6)))
	var b bytes.Buffer
	if _, err := canvas.WriteTo(&b); err != nil {
		return false, err
	}
	p.SVG = inline(b.String(), p.Title)
	return true, nil
}

// points keeps the finite values in the order of their steps.
func points(in []Point) (plotter.XYs, int) {
	var out plotter.XYs
	bad := 0
	for _, pt := range in {
		// Beyond 1e30 the axis arithmetic loses all meaning.
		if math.IsNaN(pt.Value) || math.Abs(pt.Value) > 1e30 {
			bad++
			continue
		}
		out = append(out, plotter.XY{X: float64(pt.Step), Y: pt.Value})
	}
	slices.SortStableFunc(out, func(a, b plotter.XY) int {
		switch {
		case a.X < b.X:
			return -1
		case a.X > b.X:
			return 1
		}
		return 0
	})
	return out, bad
}

// widen gives an axis whose values are all equal some room.
func widen(a *plot.Axis) {
	if a.Max-a.Min <= 1e-12*math.Max(1, math.Abs(a.Max)) {
		room := math.Abs(a.Max) / 2
		if room == 0 {
			room = 0.5
		}
		a.Min, a.Max = a.Min-room, a.Max+room
	}
}

// inline makes an SVG file fit for the page: no prolog, size from the view box,
// black drawn in the color of the text.
func inline(svg, label string) template.HTML {
	i := strings.Index(svg, "<svg ")
	j := strings.Index(svg, "viewBox")
	if i < 0 || j < 0 {
		return ""
	}
	svg = `<svg role="img" aria-label="` + template.HTMLEscapeString(label) + `" ` + svg[j:]
	svg = strings.ReplaceAll(svg, "#000000", "currentColor")
	svg = strings.ReplaceAll(svg, "font-family:Liberation Serif", "font-family:inherit")
	return template.HTML(svg) //nolint:gosec // drawn here; the only outside text in it is escaped by the SVG writer
}

// title turns a metric's name into words.
func title(name string) string {
	s := strings.ReplaceAll(name, "_", " ")
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
