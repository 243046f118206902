package dev.tfcompress.demo.run

import dev.tfcompress.demo.bundle.Bundle
import dev.tfcompress.demo.bundle.BundleModel
import dev.tfcompress.demo.bundle.BundleOutput
import dev.tfcompress.demo.measure.Agreement
import dev.tfcompress.demo.measure.Comparison
import dev.tfcompress.demo.measure.Statistics
import dev.tfcompress.demo.measure.Times
import dev.tfcompress.demo.runtime.Engine
import dev.tfcompress.demo.runtime.EngineException
import dev.tfcompress.demo.runtime.Session
import dev.tfcompress.demo.runtime.Settings
import dev.tfcompress.demo.tensor.Answer
import dev.tfcompress.demo.tensor.Answers
import dev.tfcompress.demo.tensor.Values
import java.io.Closeable
import java.nio.ByteBuffer

/** What is asked: a model of the bundle and how it is opened. */
data class Choice(val model: BundleModel, val settings: Settings)

/**
 * What a model did.
 *
 * @property init milliseconds from the file to the first inference; [first] those of the first inference.
 * @property ratio paired with the first model of the same run; null for the first.
 * @property answers the largest classes of the first labelled or only output, for what was asked.
 */
data class Outcome(
    val choice: Choice, val delegate: String, val init: Double, val first: Double, val times: Times, val ratio: Double?,
    val memory: Long?, val agreement: Agreement?, val answers: List<Answer>,
)

/** Where the inputs come from: a row of the bundle's samples, or prepared values such as a photo's. */
sealed class Source {
    data class Sample(val row: Int) : Source()

    class Prepared(val values: List<FloatArray>) : Source()
}

/** Runs models of a bundle: opens them, checks them against the expected answers, times them by turns. */
class Run(private val engine: Engine, private val bundle: Bundle) {
    /**
     * @param choices one or several; several are timed by turns and compared with the first.
     * @param runs timed inferences of each.
     * @throws EngineException where the runtime does not take a model; BundleException where one is damaged.
     */
    fun run(choices: List<Choice>, source: Source, runs: Int, told: (String) -> Unit = {}): List<Outcome> {
        val open = ArrayList<Opened>()
        try {
            for (choice in choices) {
                told(choice.model.name)
                open += Opened(choice, source)
            }
            val turns = if (open.size > 1) TURNS else 1
            repeat(turns) { turn -> open.forEach { it.time(share(runs, turns, turn)) } }
            return open.map { it.outcome(open.first()) }
        } finally {
            open.forEach { it.close() }
        }
    }

    private inner class Opened(private val choice: Choice, source: Source) : Closeable {
        private val session: Session
        private val turns = ArrayList<DoubleArray>()
        private val feeds: List<Map<String, ByteBuffer>>
        private val init: Double
        private val first: Double
        private val memory: Long?
        private val agreement: Agreement?
        private val answers: List<Answer>

        init {
            val model = choice.model
            model.unusable?.let { throw EngineException(it) }
            engine.missing(choice.settings.accelerator)?.let { throw EngineException(it) }
            val before = Memory.resident()
            val begin = System.nanoTime()
            session = engine.open(bundle.model(model), choice.settings.copy(signature = model.signature))
            init = since(begin)
            try {
                val asked = asked(model, source)
                val start = System.nanoTime()
                val got = session.run(asked)
                first = since(start)
                memory = Memory.above(before)
                answers = answers(model, got)
                agreement = compare(model)
                feeds = if (source is Source.Sample) (0 until bundle.manifest.rows).map { bundle.feed(model, it) } else listOf(asked)
            } catch (error: Exception) {
                session.close()
                throw error
            }
        }

        fun time(runs: Int) {
            turns += DoubleArray(runs) {
                val start = System.nanoTime()
                session.run(feeds[it % feeds.size])
                since(start)
            }
        }

        fun outcome(other: Opened): Outcome {
            val all = turns.flatMap { it.asIterable() }.toDoubleArray()
            val ratio = if (other === this) null else Statistics.pairedRatio(turns, other.turns)
            return Outcome(choice, session.delegate, init, first, Statistics.summary(all), ratio, memory, agreement, answers)
        }

        private fun asked(model: BundleModel, source: Source): Map<String, ByteBuffer> = when (source) {
            is Source.Sample -> bundle.feed(model, source.row)
            is Source.Prepared -> model.inputs.zip(source.values).associate { (info, values) ->
                info.name to info.buffer().also { Values.put(values, info, it) }
            }
        }

        private fun compare(model: BundleModel): Agreement? {
            val comparison = Comparison()
            for (row in 0 until bundle.manifest.rows) {
                val got = session.run(bundle.feed(model, row))
                for ((output, expected) in bundle.expected(model, row)) {
                    comparison.add(output.info, expected, of(got, output), output.step)
                }
            }
            return comparison.result()
        }

        private fun answers(model: BundleModel, got: Map<String, ByteBuffer>): List<Answer> {
            val output = model.outputs.find { it.labelled } ?: model.outputs.first()
            val labels = if (output.labelled) bundle.manifest.labels else emptyList()
            val values = Values.real(of(got, output), output.info)
            return Answers.top(values.takeLast(output.info.shape.last()).toDoubleArray(), labels, TOP, output.step, output.info.grid)
        }

        private fun of(got: Map<String, ByteBuffer>, output: BundleOutput): ByteBuffer =
            got[output.info.name] ?: throw EngineException("the model gave no output '${output.info.name}'")

        override fun close() = session.close()
    }

    companion object {
        const val TURNS = 5
        const val TOP = 3

        /** Runs of turn [turn], so that all turns together have [runs]; one at least. */
        fun share(runs: Int, turns: Int, turn: Int): Int = maxOf(1, runs / turns + if (turn < runs % turns) 1 else 0)

        internal fun since(begin: Long): Double = (System.nanoTime() - begin) / 1e6
    }
}
