//! The figure: how many of the requests were answered within which time.

use crate::{
    Result,
    report::BARE,
    signers::{Door, Program},
};
use plotters::{
    coord::Shift,
    prelude::{
        BLACK, ChartBuilder, Color as _, DrawingArea, IntoDrawingArea as _, IntoLogRange as _, LineSeries, PathElement,
        RGBColor, SVGBackend, SeriesLabelPosition, WHITE,
    },
};

const SIZE: (u32, u32) = (960, 400);

/// Draws one panel for each kind of socket, as SVG.
pub fn draw(results: &[Result]) -> String {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE).unwrap();
        for (panel, door) in area.split_evenly((1, 2)).iter().zip([Door::Tcp, Door::Unix]) {
            draw_panel(panel, door, results);
        }
        area.present().unwrap();
    }
    svg
}

fn draw_panel(panel: &DrawingArea<SVGBackend<'_>, Shift>, door: Door, results: &[Result]) {
    let rows: Vec<_> =
        results.iter().filter(|row| row.door == Some(door)).filter_map(|row| Some((row, color(row)?))).collect();
    // The same for both panels, so that they can be compared.
    let shown = || results.iter().filter(|row| color(row).is_some());
    let fastest = shown().map(|row| row.times.at(5)).fold(f64::INFINITY, f64::min);
    let slowest = shown().map(|row| row.times.at(995)).fold(0.0, f64::max);
    let mut chart = ChartBuilder::on(panel)
        .caption(format!("one chain, one node, {}", door.name()), ("sans-serif", 16))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(44)
        .build_cartesian_2d((fastest..slowest).log_scale(), 0.0..100.0)
        .unwrap();
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc("microseconds, logarithmic")
        .y_desc("% answered")
        .draw()
        .unwrap();
    for (row, color) in rows {
        let points = (5..=995).step_by(5).map(|permille| (row.times.at(permille), permille as f64 / 10.0));
        let line = chart.draw_series(LineSeries::new(points, color.stroke_width(2))).unwrap();
        line.label(&row.name).legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()
        .unwrap();
}

/// The colour of a row, if it is shown.
fn color(row: &Result) -> Option<RGBColor> {
    match row.program {
        Some(Program::Highwater) => Some(RGBColor(0, 90, 181)),
        Some(Program::Tmkms) => Some(RGBColor(220, 50, 32)),
        Some(Program::FilePv) => Some(RGBColor(225, 150, 0)),
        None if row.name.starts_with(BARE) => Some(RGBColor(120, 120, 120)),
        None => None,
    }
}
