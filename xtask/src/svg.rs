//! What pictures are made of: an SVG with a background of its own, so that it can be read on light
//! and on dark pages.

use std::fmt::Write;

/// How wide a picture is.
pub const WIDTH: f64 = 860.0;
/// What is left free around it.
pub const MARGIN: f64 = 32.0;
/// Text that is read first.
pub const INK: &str = "#24292f";
/// Text that explains.
pub const FAINT: &str = "#656d76";
/// Lines behind bars.
pub const GRID: &str = "#eaeef2";

/// A picture in the making.
pub struct Svg {
    title: &'static str,
    body: String,
}

impl Svg {
    /// A picture with nothing but its title.
    pub fn new(title: &'static str) -> Svg {
        let mut svg = Svg { title, body: String::new() };
        let style = format!(r#"font-size="20" font-weight="600" fill="{INK}""#);
        svg.text(MARGIN, 46.0, &style, title);
        svg
    }

    /// Text at its base line.
    pub fn text(&mut self, x: f64, y: f64, style: &str, text: &str) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        self.push(&format!(r#"<text x="{x:.1}" y="{y:.1}" {style}>{text}</text>"#));
    }

    /// A filled bar.
    pub fn bar(&mut self, x: f64, y: f64, width: f64, height: f64, color: &str) {
        let radius = 2.0_f64.min(width / 2.0);
        self.push(&format!(
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" rx="{radius:.1}" fill="{color}"/>"#
        ));
    }

    /// A vertical line.
    pub fn line(&mut self, x: f64, from: f64, to: f64, color: &str) {
        self.push(&format!(
            r#"<line x1="{x:.1}" y1="{from:.1}" x2="{x:.1}" y2="{to:.1}" stroke="{color}"/>"#
        ));
    }

    /// A horizontal line.
    pub fn level(&mut self, y: f64, from: f64, to: f64, color: &str) {
        self.push(&format!(
            r#"<line x1="{from:.1}" y1="{y:.1}" x2="{to:.1}" y2="{y:.1}" stroke="{color}"/>"#
        ));
    }

    /// Points joined by lines.
    pub fn curve(&mut self, points: &[(f64, f64)], width: f64, color: &str) {
        let points: Vec<_> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        self.push(&format!(
            r#"<polyline points="{}" fill="none" stroke="{color}" stroke-width="{width}" stroke-linejoin="round" stroke-linecap="round"/>"#,
            points.join(" ")
        ));
    }

    fn push(&mut self, element: &str) {
        self.body += "  ";
        self.body += element;
        self.body += "\n";
    }

    /// The picture as a file, `height` high.
    pub fn finish(self, height: f64) -> String {
        let mut svg = String::new();
        // Writing to a string cannot fail.
        let _ = write!(
            svg,
            r##"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH:.0}" height="{height:.0}" viewBox="0 0 {WIDTH:.0} {height:.0}" font-family="-apple-system, 'Segoe UI', 'Noto Sans', Helvetica, Arial, sans-serif" role="img" aria-label="{}">
  <rect x="0.5" y="0.5" width="{:.0}" height="{:.0}" rx="10" fill="#ffffff" stroke="#d0d7de"/>
{}</svg>
"##,
            self.title,
            WIDTH - 1.0,
            height - 1.0,
            self.body
        );
        svg
    }
}

/// Text beside a drawing.
pub fn small(color: &str) -> String {
    format!(r#"font-size="13" fill="{color}""#)
}

/// The number at a bar.
pub fn value(color: &str) -> String {
    format!(r#"font-size="11" font-weight="600" fill="{color}""#)
}
