package dev.tfcompress.demo.screen

import android.content.res.Resources
import dev.tfcompress.demo.R
import dev.tfcompress.demo.measure.Agreement
import dev.tfcompress.demo.run.Outcome
import dev.tfcompress.demo.runtime.Accelerator
import dev.tfcompress.demo.tensor.Answer
import java.util.Locale

/** Figures in words. */
class Texts(private val resources: Resources) {
    fun accelerator(one: Accelerator): String = resources.getString(
        when (one) {
            Accelerator.XNNPACK -> R.string.xnnpack
            Accelerator.CPU -> R.string.cpu
            Accelerator.GPU -> R.string.gpu
            Accelerator.NNAPI -> R.string.nnapi
        },
    )

    /** Heading and one text a model for each figure. */
    fun figures(outcomes: List<Outcome>): List<Pair<String, List<String>>> = buildList {
        fun row(heading: Int, text: (Outcome) -> String) = add(resources.getString(heading) to outcomes.map(text))
        row(R.string.median) { milliseconds(it.times.median) }
        row(R.string.p90) { milliseconds(it.times.p90) }
        if (outcomes.size > 1) row(R.string.ratio) { it.ratio?.let { ratio -> resources.getString(R.string.times, ratio) } ?: "1" }
        row(R.string.first_run) { milliseconds(it.first) }
        row(R.string.opening) { milliseconds(it.init) }
        row(R.string.size) { resources.getString(R.string.kilobytes, it.choice.model.size / 1024.0) }
        row(R.string.agreement) { it.agreement?.let(::agreement) ?: "" }
        row(R.string.delegate) { it.delegate }
        if (outcomes.size > 1) row(R.string.answer) { it.answers.firstOrNull()?.let { top -> "${top.label}, ${share(top)}" } ?: "" }
    }

    /** A probability, or the value itself where the model gives none. */
    fun share(answer: Answer): String =
        answer.share?.let { resources.getString(R.string.percent, 100 * it) } ?: String.format(Locale.getDefault(), "%.3g", answer.value)

    fun agreement(agreement: Agreement): String {
        val apart = when {
            agreement.largest == 0.0 -> resources.getString(R.string.equal, agreement.values)
            agreement.unit == "steps" && agreement.largest == 1.0 -> resources.getString(R.string.one_step)
            agreement.unit == "steps" -> resources.getString(R.string.steps, agreement.largest)
            else -> resources.getString(R.string.real, agreement.largest)
        }
        val text = resources.getString(if (agreement.agrees) R.string.agrees else if (agreement.close) R.string.close else R.string.differs, apart)
        val top = agreement.sameTop
        return if (top == null || top == 1.0) text else resources.getString(R.string.same_top, text, 100 * top)
    }

    private fun milliseconds(value: Double): String {
        val digits = if (value < 9.995) "%.2f" else if (value < 99.95) "%.1f" else "%.0f"
        return resources.getString(R.string.milliseconds, String.format(Locale.getDefault(), digits, value))
    }
}
