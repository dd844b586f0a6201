//! Markup that cannot be injected into: whatever goes into a template is escaped, unless it is markup already.

use std::fmt;

/// Finished HTML.
#[derive(Debug, Clone, Default)]
pub(crate) struct Markup(String);

impl Markup {
    pub(crate) fn into_string(self) -> String {
        self.0
    }

    /// For the macro only: the text must be a template of this program.
    pub(crate) fn trusted(text: String) -> Self {
        Self(text)
    }
}

impl FromIterator<Markup> for Markup {
    fn from_iter<I: IntoIterator<Item = Markup>>(parts: I) -> Self {
        Self(parts.into_iter().map(Markup::into_string).collect())
    }
}

/// How a value goes into a template.
pub(crate) trait Render {
    fn render(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

impl Render for Markup {
    fn render(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Render for Option<Markup> {
    fn render(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_ref().map_or(Ok(()), |markup| markup.render(f))
    }
}

macro_rules! escaped {
    ($($type:ty),+) => {
        $(impl Render for $type {
            fn render(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                use fmt::Write;
                write!(Escape(f), "{self}")
            }
        })+
    };
}

escaped!(str, String, u16, u32, u64, usize, i32, f64, std::net::IpAddr);
escaped!(shardkeep_types::DaemonKind, shardkeep_types::WorldId, shardkeep_cluster::State, crate::role::Role);

impl<T: Render + ?Sized> Render for &T {
    fn render(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (*self).render(f)
    }
}

struct Escape<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl fmt::Write for Escape<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(['&', '<', '>', '"', '\'']) {
            self.0.write_str(&rest[..at])?;
            self.0.write_str(match rest.as_bytes()[at] {
                b'&' => "&amp;",
                b'<' => "&lt;",
                b'>' => "&gt;",
                b'"' => "&quot;",
                _ => "&#39;",
            })?;
            rest = &rest[at + 1..];
        }
        self.0.write_str(rest)
    }
}

/// Makes a value displayable inside of a template.
pub(crate) struct Rendered<'a, T: ?Sized>(pub(crate) &'a T);

impl<T: Render + ?Sized> fmt::Display for Rendered<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.render(f)
    }
}

/// Fills a template. `{}` takes the arguments in order, escaped; `concat!` makes the compiler refuse `{name}`, which
/// would not be.
macro_rules! html {
    ($($template:literal)+ $(; $($arg:expr),+ $(,)?)?) => {
        $crate::web::html::Markup::trusted(format!(
            concat!($($template),+) $(, $($crate::web::html::Rendered(&$arg)),+)?
        ))
    };
}

pub(crate) use html;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_values_are_escaped_and_markup_is_not() {
        let name = String::from("<script>alert('\"&')</script>");
        let cell = html!("<td title=\"{}\">{}</td>"; name, 7u32);
        let row = html!("<tr>{}</tr>"; cell);
        assert_eq!(
            row.into_string(),
            "<tr><td title=\"&lt;script&gt;alert(&#39;&quot;&amp;&#39;)&lt;/script&gt;\">7</td></tr>"
        );
    }

    #[test]
    fn markup_parts_are_concatenated() {
        let list: Markup = ["a", "<b>"].into_iter().map(|it| html!("<li>{}"; it)).collect();
        assert_eq!(html!("<ul>{}{}</ul>"; list, None::<Markup>).into_string(), "<ul><li>a<li>&lt;b&gt;</ul>");
    }
}
