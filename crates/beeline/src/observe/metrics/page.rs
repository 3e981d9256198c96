//! Metrics as they are collected for one scrape.

use std::collections::HashMap;

use anyhow::{Context, Result};
use datapath::hist::{Histogram, SLOTS};
use prometheus::TextEncoder;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram as ProtoHistogram, LabelPair, Metric, MetricFamily,
    MetricType,
};

use crate::observe::hist::Unit;

/// Names and values of the labels of a series.
pub(super) type Labels = Vec<(&'static str, String)>;

/// The highest values that counters had, by series. A connection that closes during a look is missing
/// in it for once; Prometheus would take a counter that goes back for a new one, and add it again.
pub(super) type Marks = HashMap<String, f64>;

/// What was collected so far.
pub(super) struct Page {
    families: Vec<MetricFamily>,
    before: Marks,
    now: Marks,
}

impl Page {
    /// Counters are at least what they were.
    pub(super) fn new(before: Marks) -> Self {
        let (families, now) = (Vec::new(), Marks::new());
        Self {
            families,
            before,
            now,
        }
    }

    /// The text, and what the next page begins with.
    pub(super) fn finish(self) -> Result<(String, Marks)> {
        let text = TextEncoder::new().encode_to_string(&self.families);
        Ok((text.context("cannot write the metrics")?, self.now))
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.gauges(name, help, [(Labels::new(), value)]);
    }

    pub(super) fn gauges(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Labels, f64)>,
    ) {
        let metric = |(labels, value)| {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            let mut metric = labelled(labels);
            metric.set_gauge(gauge);
            metric
        };
        let metrics = series.into_iter().map(metric).collect();
        self.family(name, help, MetricType::GAUGE, metrics);
    }

    pub(super) fn counter(&mut self, name: &str, help: &str, value: f64) {
        self.counters(name, help, [(Labels::new(), value)]);
    }

    pub(super) fn counters(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Labels, f64)>,
    ) {
        let mut metrics = Vec::new();
        for (labels, value) in series {
            let mut counter = Counter::default();
            counter.set_value(self.at_least(name, &labels, "", value));
            let mut metric = labelled(labels);
            metric.set_counter(counter);
            metrics.push(metric);
        }
        self.family(name, help, MetricType::COUNTER, metrics);
    }

    pub(super) fn histograms<'a>(
        &mut self,
        name: &str,
        help: &str,
        unit: Unit,
        series: impl IntoIterator<Item = (Labels, &'a Histogram)>,
    ) {
        let mut metrics = Vec::new();
        for (labels, histogram) in series {
            let proto = self.histogram(name, &labels, unit, histogram);
            let mut metric = labelled(labels);
            metric.set_histogram(proto);
            metrics.push(metric);
        }
        self.family(name, help, MetricType::HISTOGRAM, metrics);
    }

    /// The bucket without a bound is the encoder's to add.
    fn histogram(
        &mut self,
        name: &str,
        labels: &Labels,
        unit: Unit,
        histogram: &Histogram,
    ) -> ProtoHistogram {
        let (mut buckets, mut count) = (Vec::with_capacity(SLOTS), 0);
        for (slot, counted) in histogram.slots.iter().enumerate() {
            let counted = self.at_least(name, labels, &slot.to_string(), *counted as f64);
            count += counted as u64;
            if let Some(bound) = Histogram::bound(slot) {
                let mut bucket = Bucket::default();
                bucket.set_upper_bound(unit.base(bound));
                bucket.set_cumulative_count(count);
                buckets.push(bucket);
            }
        }
        let mut proto = ProtoHistogram::default();
        proto.set_bucket(buckets);
        proto.set_sample_count(count);
        proto.set_sample_sum(self.at_least(name, labels, "sum", unit.base(histogram.sum)));
        proto
    }

    fn at_least(&mut self, name: &str, labels: &Labels, part: &str, value: f64) -> f64 {
        let series = format!("{name} {labels:?} {part}");
        let before = self.before.get(&series).copied().unwrap_or(0.0);
        let value = value.max(before);
        self.now.insert(series, value);
        value
    }

    fn family(&mut self, name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) {
        // The format knows no metric without a series.
        if metrics.is_empty() {
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(name.into());
        family.set_help(help.into());
        family.set_field_type(kind);
        family.set_metric(metrics);
        self.families.push(family);
    }
}

fn labelled(labels: Labels) -> Metric {
    let pair = |(name, value): (&str, String)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.into());
        pair.set_value(value);
        pair
    };
    Metric::from_label(labels.into_iter().map(pair).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_is_cumulative_and_in_base_units() {
        let mut histogram = Histogram::default();
        for value in [0, 2, 2, u64::MAX >> 1] {
            histogram.sum += value;
            histogram.slots[Histogram::slot(value)] += 1;
        }
        let mut page = Page::new(Marks::new());
        page.histograms(
            "x_seconds",
            "About x.",
            Unit::Milliseconds,
            [(Labels::new(), &histogram)],
        );
        let text = page.finish().unwrap().0;
        let lines = [
            "x_seconds_bucket{le=\"0\"} 1\n",
            "x_seconds_bucket{le=\"0.001\"} 1\n",
            "x_seconds_bucket{le=\"0.002\"} 3\n",
            "x_seconds_bucket{le=\"8388.608\"} 3\n",
            "x_seconds_bucket{le=\"+Inf\"} 4\n",
            "x_seconds_count 4\n",
        ];
        assert!(lines.iter().all(|line| text.contains(line)), "{text}");
    }

    #[test]
    fn a_counter_never_goes_back_unless_its_series_went() {
        let marks = [5.0, 3.0, 6.0]
            .into_iter()
            .fold(Marks::new(), |marks, value| {
                let most = marks.values().fold(0.0_f64, |most, mark| most.max(*mark));
                let mut page = Page::new(marks);
                page.counter("x_total", "About x.", value);
                let (text, marks) = page.finish().unwrap();
                assert!(
                    text.ends_with(&format!("x_total {}\n", value.max(most))),
                    "{text}"
                );
                marks
            });
        let marks = Page::new(marks).finish().unwrap().1;
        assert!(marks.is_empty());
    }
}
