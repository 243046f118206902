package dev.tfcompress.demo.tensor

import kotlin.math.abs

/** One class of an answer; [share] is its probability, or null where the output holds none. */
data class Answer(val position: Int, val label: String, val value: Double, val share: Double?)

/** Classes of an output, the largest first. */
object Answers {
    /**
     * The [count] largest values of the last axis with their labels.
     *
     * Values that are a distribution (0 to 1, together 1) are probabilities as they stand; of others none are made up,
     * unless the output is one number from 0 to 1.
     */
    fun top(values: DoubleArray, labels: List<String>, count: Int, step: Double = 0.0, grid: Grid? = null): List<Answer> {
        val shares = probabilities(values, maxOf(step, grid?.scale?.toDouble() ?: 0.0))
        return values.indices.sortedWith(compareByDescending<Int> { values[it] }.thenBy { it }).take(count)
            .map { Answer(it, labels.getOrNull(it) ?: "class $it", values[it], shares?.get(it)) }
    }

    /** Null where the values are no probabilities; each may be off by half a [step] of the grid it was rounded to. */
    fun probabilities(values: DoubleArray, step: Double = 0.0): DoubleArray? {
        val slack = 1e-3 + step * values.size / 2
        val inside = values.isNotEmpty() && values.all { it >= -1e-6 && it <= 1 + 1e-6 }
        return if (inside && (values.size == 1 || abs(values.sum() - 1) <= slack)) values else null
    }
}
