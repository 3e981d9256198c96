//! The files of the page, which are in the binary.

use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Path, content type, content.
const FILES: [(&str, &str, &str); 10] = [
    ("/", HTML, include_str!("page/index.html")),
    ("/page.css", CSS, include_str!("page/page.css")),
    ("/icon.svg", SVG, include_str!("page/icon.svg")),
    ("/main.js", SCRIPT, include_str!("page/main.js")),
    ("/model.js", SCRIPT, include_str!("page/model.js")),
    ("/dom.js", SCRIPT, include_str!("page/dom.js")),
    ("/histograms.js", SCRIPT, include_str!("page/histograms.js")),
    ("/map.js", SCRIPT, include_str!("page/map.js")),
    ("/table.js", SCRIPT, include_str!("page/table.js")),
    ("/text.js", SCRIPT, include_str!("page/text.js")),
];

pub(super) async fn file(method: Method, uri: Uri) -> Response {
    let found = FILES.iter().find(|(path, ..)| *path == uri.path());
    match found {
        Some((_, kind, content)) if matches!(method, Method::GET | Method::HEAD) => {
            ([(header::CONTENT_TYPE, *kind)], *content).into_response()
        }
        Some(_) => StatusCode::METHOD_NOT_ALLOWED.into_response(),
        None => (StatusCode::NOT_FOUND, "there is nothing here\n").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_small_and_asks_nobody_else() {
        let size: usize = FILES.iter().map(|(.., content)| content.len()).sum();
        assert!(size < 200 << 10, "{size} bytes");
        let namespace = "http://www.w3.org/2000/svg";
        for (path, _, content) in FILES {
            let content = content.replace(namespace, "");
            assert!(
                !content.contains("http:") && !content.contains("https:"),
                "{path}"
            );
        }
    }
}
