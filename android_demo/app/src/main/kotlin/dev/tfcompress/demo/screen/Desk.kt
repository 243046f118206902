package dev.tfcompress.demo.screen

import dev.tfcompress.demo.bundle.Bundle
import dev.tfcompress.demo.bundle.BundleException
import dev.tfcompress.demo.bundle.BundleInput
import dev.tfcompress.demo.run.Choice
import dev.tfcompress.demo.run.Outcome
import dev.tfcompress.demo.run.Report
import dev.tfcompress.demo.run.Run
import dev.tfcompress.demo.run.Source
import dev.tfcompress.demo.runtime.Accelerator
import dev.tfcompress.demo.runtime.Engine
import dev.tfcompress.demo.runtime.EngineException
import dev.tfcompress.demo.runtime.Settings
import dev.tfcompress.demo.tensor.Picture
import dev.tfcompress.demo.tensor.Pictures
import java.util.concurrent.Executor

/** Where bundles come from on a phone. */
interface Shelf {
    /** The bundle to begin with; null when there is none. Reads files. */
    fun open(): Bundle?
}

/** What a model is shown: a picture, or the first numbers of what is none. */
class Shown(val caption: String, val picture: Picture?, val numbers: List<Float>)

/** A model and an accelerator, as positions of the screen's lists. */
data class Pick(val model: Int, val accelerator: Accelerator)

/**
 * All that the screens show. Never changed, only replaced.
 *
 * @property ready the bundle has been looked for.
 * @property missing accelerators that cannot be used, and why.
 * @property busy what is being done, else null; [error] what went wrong last, else null.
 */
data class State(
    val ready: Boolean = false,
    val bundle: Bundle? = null,
    val missing: Map<Accelerator, String> = emptyMap(),
    val busy: String? = null,
    val error: String? = null,
    val picks: List<Pick> = listOf(Pick(0, Accelerator.XNNPACK), Pick(1, Accelerator.XNNPACK)),
    val threads: Int = 1,
    val source: Source = Source.Sample(0),
    val shown: Shown? = null,
    val outcome: Outcome? = null,
    val compared: List<Outcome> = emptyList(),
) {
    val image: BundleInput? get() = bundle?.manifest?.inputs?.singleOrNull()?.takeIf { it.isImage }
}

/**
 * What the screens share and what outlives their rotation. Called on the screens' thread; all work is done on another.
 *
 * @param work runs one task after the other, never on the screens' thread.
 * @param main runs a task on the screens' thread.
 */
class Desk(
    private val engine: Engine, private val shelf: Shelf, private val app: () -> String,
    private val work: Executor, private val main: Executor,
) {
    var state = State()
        private set(value) {
            field = value
            watchers.toList().forEach { it(value) }
        }
    private val watchers = LinkedHashSet<(State) -> Unit>()

    fun watch(watcher: (State) -> Unit) {
        watchers += watcher
        watcher(state)
    }

    fun unwatch(watcher: (State) -> Unit) {
        watchers -= watcher
    }

    /** Looks for a bundle, once. */
    fun start() {
        if (state.ready || state.busy != null) return
        load { shelf.open() }
    }

    /** Takes another bundle, such as one that the user picked. */
    fun load(open: () -> Bundle?) = perform("Opening the bundle") {
        val missing = Accelerator.entries.mapNotNull { one -> engine.missing(one)?.let { one to it } }.toMap()
        try {
            val bundle = open()
            val shown = bundle?.let { shownSample(it, 0) };
            { if (bundle != null) State(true, bundle, missing, picks = picks(bundle), shown = shown) else it.copy(ready = true, missing = missing) }
        } catch (error: BundleException) {
            { state -> state.copy(ready = true, missing = missing, error = "This bundle cannot be used: ${error.message}.") }
        }
    }

    fun pick(place: Int, pick: Pick) {
        if (state.picks[place] == pick) return
        val picks = state.picks.toMutableList().also { it[place] = pick }
        state = state.copy(picks = picks, outcome = state.outcome.takeIf { place > 0 }, compared = emptyList(), error = null)
    }

    fun threads(count: Int) {
        if (state.threads != count) state = state.copy(threads = count, outcome = null, compared = emptyList(), error = null)
    }

    /** The sample that lies [step] further; after the last one the first comes again. */
    fun sample(step: Int) {
        val bundle = state.bundle ?: return
        val row = (state.source as? Source.Sample)?.let { Math.floorMod(it.row + step, bundle.manifest.rows) } ?: 0
        perform("Reading the sample") {
            val shown = shownSample(bundle, row);
            { it.copy(source = Source.Sample(row), shown = shown, outcome = null) }
        }
    }

    /** A photo in place of the samples; [read] is called off the screens' thread. */
    fun photo(caption: String, read: () -> Picture) {
        val image = state.image ?: return
        perform("Reading the picture") {
            val (height, width, channels) = image.shape
            val values = Pictures.input(read(), height, width, channels, image.mean, image.std)
            val seen = Pictures.shown(values, height, width, channels, image.mean, image.std);
            { it.copy(source = Source.Prepared(listOf(values)), shown = Shown(caption, seen, emptyList()), outcome = null) }
        }
    }

    fun run() {
        val (bundle, choice) = (state.bundle ?: return) to (choice(0) ?: return)
        val source = state.source
        perform("Running ${choice.model.name}") {
            val outcome = Run(engine, bundle).run(listOf(choice), source, RUNS).single();
            { it.copy(outcome = outcome) }
        }
    }

    fun compare() {
        val bundle = state.bundle ?: return
        val choices = listOfNotNull(choice(0), choice(1))
        if (choices.size < 2) return
        val source = state.source
        perform("Running ${choices.joinToString(" and ") { it.model.name }} by turns") {
            val outcomes = Run(engine, bundle).run(choices, source, RUNS);
            { it.copy(compared = outcomes) }
        }
    }

    /** JSON of what was measured last, to be shared. */
    fun report(outcomes: List<Outcome>): String {
        val report = Report(engine, app(), state.bundle?.manifest?.name.orEmpty())
        outcomes.forEach(report::add)
        report.finished = true
        return report.json()
    }

    private fun choice(place: Int): Choice? {
        val pick = state.picks[place]
        val model = state.bundle?.manifest?.models?.getOrNull(pick.model) ?: return null
        return Choice(model, Settings(pick.accelerator, state.threads))
    }

    private fun picks(bundle: Bundle): List<Pick> {
        val last = bundle.manifest.models.lastIndex
        return listOf(Pick(0, Accelerator.XNNPACK), Pick(minOf(1, last), Accelerator.XNNPACK))
    }

    private fun shownSample(bundle: Bundle, row: Int): Shown? {
        val input = bundle.manifest.inputs.firstOrNull() ?: return null
        val values = bundle.sample(0, row)
        val caption = "Sample ${row + 1} of ${bundle.manifest.rows}"
        if (!input.isImage) return Shown(caption, null, values.take(NUMBERS))
        val (height, width, channels) = input.shape
        return Shown(caption, Pictures.shown(values, height, width, channels, input.mean, input.std), emptyList())
    }

    /** Does [task] off the screens' thread; what it returns makes the next state. */
    private fun perform(what: String, task: () -> (State) -> State) {
        if (state.busy != null) return
        state = state.copy(busy = what, error = null)
        work.execute {
            val next: (State) -> State = try {
                task()
            } catch (error: EngineException) {
                told(error.message)
            } catch (error: BundleException) {
                told(error.message)
            } catch (error: LinkageError) {
                told("the runtime library does not load on this phone: ${error.message}")
            } catch (error: OutOfMemoryError) {
                told("this phone has not enough memory for it")
            } catch (error: Exception) {
                told("$what failed: ${error.message ?: error.javaClass.simpleName}")
            }
            main.execute { state = next(state).copy(busy = null) }
        }
    }

    private fun told(message: String?): (State) -> State = { it.copy(error = message ?: "unknown") }

    companion object {
        const val RUNS = 50
        const val NUMBERS = 6
    }
}
