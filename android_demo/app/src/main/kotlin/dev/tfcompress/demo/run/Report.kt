package dev.tfcompress.demo.run

import dev.tfcompress.demo.json.Json
import dev.tfcompress.demo.measure.Agreement
import dev.tfcompress.demo.measure.Times
import dev.tfcompress.demo.runtime.Engine

/**
 * Results as JSON: what `tflite-export benchmark --target android --runner app` reads, what is shared from a screen,
 * and what the Swift file of `examples/ios/` prints.
 */
class Report(private val engine: Engine, private val app: String, private val run: String) {
    private val entries = ArrayList<Map<String, Any?>>()
    var finished = false
    var error = ""

    fun add(outcome: Outcome) {
        val settings = outcome.choice.settings
        entries += measured(
            outcome.choice.model.name, outcome.choice.model.sha256, outcome.delegate, outcome.init, outcome.first,
            outcome.times, outcome.ratio, outcome.memory,
        ) + mapOf(
            "agreement" to outcome.agreement?.let(::told), "outputs" to emptyList<Any>(), "warnings" to emptyList<Any>(),
            "accelerator" to settings.accelerator.key, "threads" to settings.threads, "size" to outcome.choice.model.size,
            "answers" to outcome.answers.map { mapOf("label" to it.label, "value" to it.value, "share" to it.share) },
        )
    }

    fun add(entry: Map<String, Any?>) {
        entries += entry
    }

    fun json(): String = Json.write(
        linkedMapOf(
            "schema" to SCHEMA, "run" to run, "finished" to finished, "error" to error, "app" to app,
            "runtime" to engine.runtime, "version" to engine.version, "entries" to entries,
        ),
        indent = 1,
    ) + "\n"

    companion object {
        const val SCHEMA = 1

        fun measured(
            name: String, sha256: String, delegate: String, init: Double, first: Double, times: Times, ratio: Double?, memory: Long?,
        ): Map<String, Any?> = linkedMapOf(
            "name" to name, "sha256" to sha256, "status" to "ok", "reason" to "", "delegate" to delegate,
            "runs" to times.runs, "init_ms" to init, "first_ms" to first, "median_ms" to times.median, "p90_ms" to times.p90,
            "p99_ms" to times.p99, "min_ms" to times.min, "spread" to times.spread, "ratio" to ratio,
            "peak_memory" to memory, "operations" to emptyList<Any>(),
        )

        fun failed(name: String, sha256: String, reason: String): Map<String, Any?> =
            linkedMapOf("name" to name, "sha256" to sha256, "status" to "failed", "reason" to reason)

        private fun told(agreement: Agreement) = linkedMapOf(
            "against" to "expected", "values" to agreement.values, "equal" to agreement.equal,
            "largest" to agreement.largest, "unit" to agreement.unit,
        )
    }
}
